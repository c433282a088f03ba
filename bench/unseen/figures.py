"""Figures of one system: AUC, balanced accuracy, recall and specificity with intervals by unit.

A scan is called a tumour from log-odds 0 on, the weights' own operating point. Every figure is by
scan (slice) but for `by_unit`, where the answer to a unit is the mean log-odds of its scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.intervals import (
    draw_auroc,
    draw_balanced_accuracy,
    draw_units,
    find_interval,
)
from bench.summaries import group_rows
from bench.unseen.sizes import SIZES, name_size
from core import metrics
from train.data.dataset import ScanDataset
from train.data.sources import HEALTHY

Figures = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """Labels and groupings of N scans."""

    y: Tensor  # (N,)
    units: Sequence[int]  # patient, or group of near-duplicates
    patients: Sequence[str]  # empty where unknown, as are the rest
    sources: Sequence[str]
    views: Sequence[str]  # sequence and plane
    kinds: Sequence[str]  # of tumour
    sizes: Sequence[str]  # of tumour

    @classmethod
    def of(cls, fold: ScanDataset, sizes: Mapping[int, float]) -> Facts:
        """Collect the facts of a fold's scans; `sizes` are those of tumours by row."""
        records = [entry.record for entry in fold.entries]
        return cls(
            fold.labels,
            fold.groups,
            [r.patient for r in records],
            fold.sources,
            [f"{r.sequence} {r.plane}".strip() for r in records],
            ["" if r.subtype == HEALTHY else r.subtype for r in records],
            [name_size(sizes[i]) if i in sizes else "" for i in range(len(fold))],
        )

    def pick(self, rows: Sequence[int]) -> Facts:
        """Return the facts of these scans."""
        names = (self.units, self.patients, self.sources, self.views, self.kinds, self.sizes)
        return Facts(self.y[list(rows)], *([values[i] for i in rows] for values in names))


def summarize_system(log_odds: Tensor, facts: Facts) -> Figures:
    """Compute the figures of all sources, and the mean of their balanced accuracies."""
    sources = {}
    for name, rows in group_rows(facts.sources).items():
        part, own = facts.pick(rows), log_odds[rows]
        sources[name] = {
            **measure_block(own, part.y, part.units),
            "patients": len({p for p in part.patients if p}),
            "by_unit": measure_units(own, part),
            "views": {
                view: measure_block(own[some], part.y[some], [part.units[i] for i in some])
                for view, some in group_rows(part.views).items()
                if view
            },
            "kinds": measure_recall(own, part.units, part.kinds),
            "sizes": measure_recall(own, part.units, part.sizes, SIZES),
        }
    return {"mean_balanced": average_balanced_accuracy(log_odds, facts), "sources": sources}


def measure_block(log_odds: Tensor, y: Tensor, units: Sequence[int]) -> Figures:
    """Compute what the classes present allow: recall, specificity, balanced accuracy, AUC."""
    right = (log_odds >= 0) == (y == 1)
    block: Figures = {"n": len(y), "tumours": int(y.sum()), "units": len(set(units))}
    for name, label in (("recall", 1), ("specificity", 0)):
        rows = (y == label).nonzero()[:, 0].tolist()
        if rows:
            block[name] = share_by_unit(right[rows], [units[i] for i in rows])
    if 0 < block["tumours"] < len(y):
        times = draw_units(units)
        block["balanced"] = {
            "value": (block["recall"]["value"] + block["specificity"]["value"]) / 2,
            "interval": find_known_interval(draw_balanced_accuracy(times, right, y)),
        }
        block["auc"] = {
            "value": metrics.auroc(log_odds, y),
            "interval": find_known_interval(draw_auroc(times, log_odds, y)),
        }
    return block


def measure_units(log_odds: Tensor, facts: Facts) -> Figures:
    """Compute the figures of whole units: a unit with a tumour in any scan has one."""
    names, place = torch.unique(torch.tensor(list(facts.units)), return_inverse=True)
    sums = torch.zeros(len(names), dtype=log_odds.dtype).index_add(0, place, log_odds)
    tumours = torch.zeros(len(names), dtype=torch.long).index_add(0, place, facts.y)
    return measure_block(sums / torch.bincount(place), tumours.clamp(max=1), range(len(names)))


def measure_recall(
    log_odds: Tensor, units: Sequence[int], names: Sequence[str], order: Sequence[str] = ()
) -> Figures:
    """Compute the recall of tumours by name, in `order`; scans without a name are left out."""
    groups = group_rows(names)
    return {
        name: share_by_unit(log_odds[groups[name]] >= 0, [units[i] for i in groups[name]])
        for name in order or groups
        if name and name in groups
    }


def average_balanced_accuracy(log_odds: Tensor, facts: Facts) -> Figures:
    """Compute the mean of the balanced accuracies of the sources that have both classes."""
    right, times = (log_odds >= 0) == (facts.y == 1), draw_units(facts.units)
    values, drawn, named = [], [], []
    for name, rows in group_rows(facts.sources).items():
        y, inside = facts.y[rows], right[rows]
        if not 0 < int(y.sum()) < len(y):
            continue
        named.append(name)
        values.append(sum(float(inside[y == label].double().mean()) for label in (0, 1)) / 2)
        drawn.append(draw_balanced_accuracy(times[:, rows], inside, y))
    if not named:
        return {"sources": []}
    interval = find_known_interval(torch.stack(drawn).mean(0))
    return {"value": sum(values) / len(values), "interval": interval, "sources": named}


def share_by_unit(chosen: Tensor, units: Sequence[int]) -> Figures:
    """Compute k, n, k / n and its interval by unit.

    Where all are alike, resampling cannot tell: Wilson's interval, each unit counting once.
    """
    k, n, num_units = int(chosen.sum()), len(chosen), len(set(units))
    if k in (0, n):
        interval = metrics.wilson_interval(num_units if k else 0, num_units)
    else:
        interval = metrics.group_bootstrap_interval(chosen, units)
    return {"k": k, "n": n, "units": num_units, "value": k / n, "interval": interval}


def find_known_interval(drawn: Tensor) -> metrics.Interval | None:
    """Return the interval of figures (D,) of draws, or None where all are 0 or all are 1."""
    low, high = find_interval(drawn)
    return None if low == high and low in (0, 1) else (low, high)
