"""Scans whose label the network of every repeat finds improbable.

The log-odds of a scan are divided by a temperature chosen on the scans of the same repeat and
source in the other parts: out of fold too, and of other units. Without a bias, because a source
may hold one label alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.calibration.calibrate import find_temperature
from train.data.dataset import ScanDataset, compute_weights

MAX_PROBABILITY = 0.1  # of a disputed label


def calibrate_log_odds(log_odds: Tensor, parts: Sequence[int], data: ScanDataset) -> Tensor:
    """Divide the log-odds (N,) of one repeat by the temperature of each source and part.

    The weights are those of training. Where a source has no scan in another part, its log-odds
    stay.
    """
    part, calibrated = torch.tensor(parts), log_odds.clone()
    sources = data.sources
    for source in set(sources):
        inside = torch.tensor([s == source for s in sources])
        for number in set(part[inside].tolist()):
            rows = torch.nonzero(inside & (part != number)).flatten().tolist()
            if rows:
                groups = [data.groups[i] for i in rows]
                weights = compute_weights([data.cells[i] for i in rows], groups)
                logits = torch.stack([torch.zeros_like(log_odds[rows]), log_odds[rows]], 1)
                temperature = find_temperature(
                    logits, data.labels[rows], weights / weights.sum(), groups
                )
                calibrated[inside & (part == number)] /= temperature
    return calibrated


def find_disputed(calibrated: Tensor, labels: Tensor) -> list[int]:
    """Return the rows whose label has less than `MAX_PROBABILITY` in every repeat.

    Args:
        calibrated: log-odds of 'tumour' (R, N) of R repeats.
        labels: (N,), 1 is 'tumour'.
    """
    probability = torch.where(labels == 1, calibrated, -calibrated).sigmoid()
    return torch.nonzero((probability < MAX_PROBABILITY).all(0)).flatten().tolist()
