"""Accuracy under attack, all systems side by side in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.result_file import ResultFile
from bench.robustness.old_checks import check_attacks, check_rows
from bench.robustness.old_systems import MEANING, Bench, System
from bench.robustness.rows import Row, measure
from bench.summaries import figures, reliability
from core import metrics
from core.attacks import PGD
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

PAIRS = (
    ("defence", "undefended"),
    ("defence", "trained-mixture"),
    ("plain-purified", "undefended"),
    ("trained-mixture", "uniform-attention"),
    ("trained-mixture", "best-expert"),
)


def run(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    validation: ScanDataset,
    rows: Sequence[Row],
    systems: Sequence[System],
    *,
    eps: float,
    batch_size: int,
) -> None:
    """Fills `store` with one row per attack, after choosing the best expert and self-checks."""
    bench = Bench(pipeline)
    if any(s.surface == "expert" for s in systems):
        bench.expert = store.row(
            "expert", lambda: choose_expert(pipeline, validation, eps, batch_size)
        )["expert"]

    def self_check() -> dict[str, Any]:
        found, warnings = check_attacks(bench, test, systems, eps, batch_size)
        for warning in warnings:
            store.warn(warning)
        return found

    store.row("self-check", self_check)
    for row in rows:
        store.row(
            row.name, lambda r=row: evaluate(bench, test, r, systems, batch_size),
            systems=[s.name for s in systems],
        )  # fmt: skip
    for warning in check_rows(store.content["rows"]):
        store.warn(warning)


def evaluate(
    bench: Bench, fold: ScanDataset, row: Row, systems: Sequence[System], batch_size: int = 32
) -> dict[str, Any]:
    """One row: every system's figures, and the exact tests between the pairs of interest.

    Raises:
        ValueError: a system returns no numbers, or one answer for all scans of both classes.
    """
    readings = measure(bench, fold, row, systems, batch_size)
    for name, reading in readings.items() if len(fold.labels.unique()) > 1 else ():
        if bool((reading.probability == reading.probability[0]).all()):
            raise ValueError(f"{name} says the same of every scan, whatever is in it")
    right = {name: metrics.is_right(r.probability, fold.labels) for name, r in readings.items()}
    tests = {}
    for first, second in PAIRS:
        if first in right and second in right:
            b, c, p = metrics.mcnemar(right[first], right[second])
            tests[f"{first} / {second}"] = {"only_first": b, "only_second": c, "p": p}
    attack = row.attack
    return {
        "meaning": row.meaning,
        "attack": attack and vars(attack),
        "systems": {
            name: {
                "meaning": MEANING[name],
                **figures(reading, fold),
                "reliability": reliability(reading.probability, fold.labels),
            }
            for name, reading in readings.items()
        },
        "mcnemar": tests,
    }


def choose_expert(
    pipeline: MedFedPure, validation: ScanDataset, eps: float, batch_size: int = 32
) -> dict[str, Any]:
    """The expert with the best mean of clean accuracy and accuracy under A0 on validation scans."""
    alone = [System("expert", "expert")]
    attack = Row("A0", "", PGD(eps=eps, alpha=max(eps / 5, 1e-9)))
    scores = []
    for k in range(len(pipeline.classifier.model.experts)):
        both = [
            metrics.accuracy(
                measure(Bench(pipeline, k), validation, row, alone, batch_size)[
                    "expert"
                ].probability,
                validation.labels,
            )
            for row in (Row(f"expert {k}", ""), attack)
        ]
        scores.append({"clean": both[0], "A0": both[1]})
    means = [s["clean"] + s["A0"] for s in scores]
    return {"expert": means.index(max(means)), "validation": scores, "n": len(validation)}
