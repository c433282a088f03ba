"""Paired test of two weights: the worst case of the mixture's answer on the same scans."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.explanations.outlined import Outlined
from bench.parallel import progress
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
    marked = []
    device = classifier.bias.device
    for x, y, seeds in progress(data.fold.batches(batch_size, device), "worst case"):
        right = _is_right(classifier, x, y)
        for loss in LOSSES:
            x_adv = APGD(PAPER_EPS, steps, loss=loss)(classifier, x, y, seeds)
            right &= _is_right(classifier, x_adv, y)
        marked.append(right.cpu())
    return torch.cat(marked)


@torch.no_grad()
def _is_right(classifier: Calibrated, x: Tensor, y: Tensor) -> Tensor:
    right: Tensor = classifier(x).argmax(1) == y
    return right
