"""Scans whose answer stays right under each of several attacks on one classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.parallel import progress
from core.classifier import Calibrated
from train.data.dataset import ScanDataset


def mark_survivors(
    classifier: Calibrated, fold: ScanDataset, attacks: Sequence[Callable[..., Tensor]], size: int
) -> Tensor:
    """Mark the scans that are right clean and after every attack, bool (N,), in batches of `size`.

    The attacks are made through the classifier's own gradient.
    """
    parts = []
    for x, y, seeds in progress(fold.batches(size, classifier.bias.device), "worst case"):
        right = _is_right(classifier, x, y)
        for attack in attacks:
            right &= _is_right(classifier, attack(classifier, x, y, seeds), y)
        parts.append(right.cpu())
    return torch.cat(parts)


@torch.no_grad()
def _is_right(classifier: Calibrated, x: Tensor, y: Tensor) -> Tensor:
    right: Tensor = classifier(x).argmax(1) == y
    return right
