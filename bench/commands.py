"""The measurements of `python -m bench`: one line adds a command.

A command is a module with `HELP`, `add_options(parser)` and `run(args)`, and with `table(results)`
for the marker of its name, or `TABLES`, renderers by marker, where it fills several.
"""

from __future__ import annotations

from types import ModuleType

from bench.app import latency, load_test
from bench.audits import exports, leakage
from bench.components import (
    autoencoder,
    certificate,
    detector,
    finishing,
    gate,
    out_of_distribution,
    picture,
    purifier,
)
from bench.explanations import run as explanations
from bench.federation import comparison
from bench.federation import run as federation
from bench.labels import run as labels
from bench.markdown import Renderer
from bench.report.headline import render_headline
from bench.robustness import run as robustness
from bench.stability import run as stability
from bench.unseen import coverage, mixtures
from bench.unseen import run as unseen

MEASUREMENTS: dict[str, ModuleType] = {
    "robustness": robustness,
    "stability": stability,
    "detection": detector,
    "purifier": purifier,
    "picture": picture,
    "finishing": finishing,
    "mae": autoencoder,
    "explanations": explanations,
    "gate": gate,
    "novelty": out_of_distribution,
    "certify": certificate,
    "unseen": unseen,
    "coverage": coverage,
    "mixtures": mixtures,
    "labels": labels,
    "latency": latency,
    "demo": load_test,
    "tables": comparison,
    "federation": federation,
    "exports": exports,
    "leakage": leakage,
}


def tables() -> dict[str, Renderer]:
    """Returns the renderer of every marker."""
    found: dict[str, Renderer] = {"headline": render_headline}
    for name, module in MEASUREMENTS.items():
        found |= module.TABLES if hasattr(module, "TABLES") else {name: module.table}
    return found
