"""Sentence under the error map, with the figure that says how well the map detects attacks."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from demo.rendering.wording import ERROR_CAPTION

RESULTS = Path(__file__).parents[2] / "results" / "detection-patients.json"
ATTACK = "plain, eps 0.015"
NEARLY_CHANCE = 0.55  # AUROC; .5 is chance


@cache
def describe_error_map(path: Path = RESULTS) -> str:
    """Describe what the error map can and cannot show; without the figure if it is not there.

    The figure is the AUROC of the paper's score, the map's mean, under PGD-7 of eps .015.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        auroc = float(rows[ATTACK]["scores"]["paper"]["auroc"])
    except (OSError, ValueError, KeyError, TypeError):
        return ERROR_CAPTION
    figure = f"AUROC {auroc:.2f}".replace(" 0.", " .")
    worth = "hardly better than chance" if auroc < NEARLY_CHANCE else "better than chance"
    return f"{ERROR_CAPTION.removesuffix('.')}; as a detector {worth} ({figure})."
