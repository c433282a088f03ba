"""What plots need of scores and probabilities, small enough for a result file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core import metrics

ROC_STEPS = 100
RANGES = {"paper": (0.0, 15.0), "fused": (-10.0, 20.0)}  # of each score; nearly all scans lie there
SCORE_BINS = 30
RELIABILITY_BINS = 10


def roc(negative: Tensor, positive: Tensor) -> list[float]:
    """Share of `positive` (N,) found where at most 0, 1, ... 100 % of `negative` (M,) are flagged.

    101 values in [0, 1] that never fall; the last is 1.
    """
    score = torch.cat([negative, positive])
    y = torch.cat([torch.zeros(len(negative)), torch.ones(len(positive))]).long()
    found = [metrics.tpr_at_fpr(score, y, i / ROC_STEPS) for i in range(ROC_STEPS)]
    return [*found, 1.0]


def histogram(score: Tensor, name: str) -> dict[str, Any]:
    """Counts of scores (N,) in 30 equal bins of the score's fixed range.

    What lies outside counts in the first or last bin, so that the counts add up to N.
    """
    low, high = RANGES[name]
    place = ((score.double() - low) / (high - low) * SCORE_BINS).floor()
    bins = place.clamp(0, SCORE_BINS - 1).long()
    counts = torch.bincount(bins, minlength=SCORE_BINS).tolist()
    return {"low": low, "high": high, "counts": counts}


def reliability(probability: Tensor, y: Tensor) -> dict[str, list[Any]]:
    """Ten equal bins of the probability of a tumour (N,), against the labels (N,) of 0 or 1.

    Returns:
        For each bin the scans `n`, the `tumours` among them, and their `mean` probability, which
        is None where the bin is empty.
    """
    bins = (probability.double() * RELIABILITY_BINS).floor().clamp(0, RELIABILITY_BINS - 1).long()
    inside = [bins == i for i in range(RELIABILITY_BINS)]
    return {
        "n": [int(rows.sum()) for rows in inside],
        "tumours": [int(y[rows].sum()) for rows in inside],
        "mean": [float(probability[r].double().mean()) if r.any() else None for r in inside],
    }
