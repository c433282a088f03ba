"""Paired test of two weights: the worst case of the mixture's answer on the same scans."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench.explanations.outlined import Outlined
from bench.robustness.survivors import mark_survivors
from bench.summaries import group_rows, share_by_group
from core import metrics
from core.attacks import APGD
from core.attacks.threat_models import PAPER_EPS
from core.classifier import Calibrated

LOSSES = ("ce", "margin")


def compare_weights(
    pair: tuple[Calibrated, Calibrated], data: Outlined, steps: int, batch_size: int
) -> dict[str, Any]:
    """Compare two mixtures by McNemar's exact test on the scans that no attack turns.

    Each is attacked through its own gradient. 'p' is two-sided; a scan counts once, though scans
    of one patient are not independent.
    """
    first, second = (mark_robust(model, data, steps, batch_size) for model in pair)
    only_first, only_second, p = metrics.mcnemar(first, second)
    return {
        "n": len(first),
        "steps": steps,
        "worst": [share_by_group(right, data.fold.groups) for right in (first, second)],
        "sources": {
            source: [float(right[rows].double().mean()) for right in (first, second)]
            for source, rows in group_rows(data.fold.sources).items()
        },
        "only_first": only_first,
        "only_second": only_second,
        "p": p,
    }


def mark_robust(classifier: Calibrated, data: Outlined, steps: int, batch_size: int) -> Tensor:
    """Mark the scans that are right clean and under APGD with either loss, bool (N,)."""
    attacks = [APGD(PAPER_EPS, steps, loss=loss) for loss in LOSSES]
    return mark_survivors(classifier, data.fold, attacks, batch_size)
