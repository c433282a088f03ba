"""Clean accuracy and accuracy under the paper's attack on all scans, with all figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.result_file import ResultFile
from bench.robustness.attacks import A0, CLEAN, Attack, Attacker, paper_rows
from bench.robustness.checks import check_attacks, check_rows
from bench.robustness.evaluate import measure_readings
from bench.robustness.systems import ALL_SCANS_SYSTEMS, System, build_systems
from bench.summaries import count_reliability, summarize_reading
from core import metrics
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

PAIRS = (
    ("defence", "undefended"),
    ("defence", "trained-mixture"),
    ("plain-purified", "undefended"),
    ("trained-mixture", "uniform-attention"),
    ("trained-mixture", "best-expert"),
)
EXPERT = "best-expert"


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    validation: ScanDataset,
    rows: Sequence[str],
    names: Sequence[str] | None,
    *,
    eps: float,
    batch_size: int,
) -> None:
    """Fill `store` with a row for each attack, after choosing the best expert and self-checks."""
    attacks = paper_rows(rows)
    systems = build_systems(pipeline, names, tuple(ALL_SCANS_SYSTEMS))
    if EXPERT in [s.name for s in systems]:
        best = store.row("expert", lambda: choose_expert(pipeline, validation, eps, batch_size))
        systems = build_systems(pipeline, names, tuple(ALL_SCANS_SYSTEMS), best["expert"])

    def self_check() -> dict[str, Any]:
        found, warnings = check_attacks(pipeline, test, systems, eps, batch_size)
        for warning in warnings:
            store.warn(warning)
        return found

    store.row("self-check", self_check)
    for attack in attacks:
        store.row(
            attack.key,
            lambda a=attack: evaluate_all(pipeline, test, a, Attacker(eps), systems, batch_size),
            systems=[s.name for s in systems],
        )
    for warning in check_rows(store.content["rows"]):
        store.warn(warning)


def evaluate_all(
    pipeline: MedFedPure,
    fold: ScanDataset,
    attack: Attack,
    attacker: Attacker,
    systems: Sequence[System],
    batch_size: int = 32,
) -> dict[str, Any]:
    """Return one row: every system's figures, and exact tests between the pairs of interest.

    Raises:
        ValueError: a system returns no numbers, or one answer for all scans of both classes.
    """
    readings = measure_readings(pipeline, fold, attack, attacker, systems, batch_size)
    for name, reading in readings.items() if len(fold.labels.unique()) > 1 else ():
        if bool((reading.probability == reading.probability[0]).all()):
            raise ValueError(f"{name} says the same of every scan, whatever is in it")
    right = {name: metrics.is_right(r.probability, fold.labels) for name, r in readings.items()}
    tests = {}
    for first, second in PAIRS:
        if first in right and second in right:
            b, c, p = metrics.mcnemar(right[first], right[second])
            tests[f"{first} / {second}"] = {"only_first": b, "only_second": c, "p": p}
    return {
        "meaning": attack.meaning,
        "attack": attack.algorithm and vars(attack.algorithm(attacker)),
        "systems": {
            s.name: {
                "meaning": s.meaning,
                **summarize_reading(readings[s.name], fold),
                "reliability": count_reliability(readings[s.name].probability, fold.labels),
            }
            for s in systems
        },
        "mcnemar": tests,
    }


def choose_expert(
    pipeline: MedFedPure, validation: ScanDataset, eps: float, batch_size: int = 32
) -> dict[str, Any]:
    """Return the expert of the best mean of clean accuracy and accuracy under A0 on validation."""
    scores = []
    for k in range(len(pipeline.classifier.model.experts)):
        alone = build_systems(pipeline, [EXPERT], tuple(ALL_SCANS_SYSTEMS), k)
        scores.append({})
        for attack in (CLEAN, A0):
            found = measure_readings(pipeline, validation, attack, Attacker(eps), alone, batch_size)
            scores[-1][attack.key] = metrics.accuracy(found[EXPERT].probability, validation.labels)
    means = [s["clean"] + s["A0"] for s in scores]
    return {"expert": means.index(max(means)), "validation": scores, "n": len(validation)}
