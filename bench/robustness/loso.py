"""Leave one source out, both ways: a system trained on one source reads the other's test fold."""

from __future__ import annotations

from collections.abc import Sequence

from bench.data import Fold
from bench.result_file import ResultFile
from bench.robustness.old_systems import Bench, System
from bench.robustness.robustness import evaluate
from bench.robustness.rows import rows_named
from core.pipeline import MedFedPure

# protocol that trained the system -> protocol whose test fold it reads
WAYS = {"leak-free": "second-source", "second-source": "leak-free"}


def run(
    store: ResultFile,
    trained_on: str,
    pipeline: MedFedPure,
    test: Fold,
    names: Sequence[str],
    systems: Sequence[System],
    *,
    eps: float,
    batch_size: int,
) -> None:
    """Fills `store` with one row per attack for one way; folds keep near-duplicates together."""
    bench = Bench(pipeline)
    for row in rows_named(names, eps):
        store.row(
            f"{trained_on} on {WAYS[trained_on]}: {row.name}",
            lambda r=row: evaluate(bench, test, r, systems, batch_size),
            systems=[s.name for s in systems],
        )
