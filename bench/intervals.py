"""Intervals of AUC, recall and balanced accuracy by bootstrap, drawing whole units.

A unit is a patient, or a group of near-duplicates: scans of one are not independent. `times` (D, N)
holds how often each of D draws takes each of N scans. A figure of a draw that lacks a class is NaN
and left out of the interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.metrics import Interval

NUM_DRAWS = 2000


def draw_units(units: Sequence[int], num_draws: int = NUM_DRAWS, seed: int = 0) -> Tensor:
    """Draw as many units as there are, with replacement; return `times` (D, N), float64."""
    generator = torch.Generator().manual_seed(seed)
    names, index = torch.unique(torch.as_tensor(list(units)), return_inverse=True)
    picked = torch.randint(len(names), (num_draws, len(names)), generator=generator)
    counts = torch.zeros(picked.shape, dtype=torch.float64)
    return counts.scatter_add(1, picked, torch.ones_like(counts))[:, index]


def draw_mean(times: Tensor, values: Tensor, among: Tensor) -> Tensor:
    """Compute the mean of `values` (N,) over `among`, bool (N,), in each draw: (D,)."""
    return times @ (values.double() * among) / (times @ among.double())


def draw_share(times: Tensor, chosen: Tensor, among: Tensor) -> Tensor:
    """Compute the share of `chosen` in `among`, both bool (N,), in each draw: (D,)."""
    return draw_mean(times, chosen, among)


def draw_balanced_accuracy(times: Tensor, right: Tensor, y: Tensor) -> Tensor:
    """Compute the mean of recall and specificity in each draw, (D,), from `right` bool (N,)."""
    return (draw_share(times, right, y == 1) + draw_share(times, right, y == 0)) / 2


def draw_auroc(times: Tensor, score: Tensor, y: Tensor) -> Tensor:
    """Compute the area under the ROC curve in each draw, (D,); ties count half."""
    values, place = torch.unique(score, return_inverse=True)

    def count(label: int) -> Tensor:
        found = torch.zeros(len(times), len(values), dtype=torch.float64)
        return found.index_add(1, place[y == label], times[:, y == label])

    positive, negative = count(1), count(0)
    below = negative.cumsum(1) - negative
    wins = (positive * (below + negative / 2)).sum(1)
    return wins / positive.sum(1) / negative.sum(1)


def find_interval(values: Tensor, level: float = 0.95) -> Interval:
    """Return the percentile interval of figures (D,) of draws, at least one of them a number."""
    tail = (1 - level) / 2
    points = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.quantile(values[values.isfinite()].double(), points).tolist()
    return low, high
