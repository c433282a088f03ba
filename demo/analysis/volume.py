"""Readings of the slices of a volume, and one answer for the volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.diagnosis import Diagnosis
from demo.analysis.regions import find_regions

NEIGHBOURS = 3  # slices whose mean decides: a tumour reaches through several, a mistake often not


@dataclass(frozen=True)
class SliceReading:
    """Output for one slice of a volume."""

    score: float  # of the detector
    flagged: bool
    can_judge: bool
    log_odds: float  # of a tumour, with defence
    area: float | None  # of the tumour map from .5 on, over the head's; None without a map

    @property
    def tumour_probability(self) -> float:
        """Probability of a tumour, with defence."""
        return 1 / (1 + math.exp(-self.log_odds))

    @classmethod
    def of(cls, d: Diagnosis) -> SliceReading:
        """Summarise the reading of a slice."""
        found = find_regions(d)
        log_odds = float(d.expert_shares.sum()) + d.operating_point
        area = None if found is None else found.head_share
        return cls(d.score, d.flagged, d.can_judge, log_odds, area)


@dataclass(frozen=True)
class VolumeAnswer:
    """Answer for a volume, and the slices that it rests on."""

    tumour_probability: float
    first: int  # slice, from 0
    last: int


def answer_volume(readings: Mapping[int, SliceReading | None]) -> VolumeAnswer | None:
    """Answer for a volume by its slices' readings; None without a slice that can be judged.

    The rule: the highest mean of the log-odds over `NEIGHBOURS` neighbouring slices that can be
    judged, or over as many as there are side by side. The mean over all slices would hide a tumour
    that fills few of them.
    """
    runs: list[list[tuple[int, float]]] = []
    for index, found in sorted(readings.items()):
        if found is None or not found.can_judge:
            continue
        if not runs or runs[-1][-1][0] != index - 1:
            runs.append([])
        runs[-1].append((index, found.log_odds))
    if not runs:
        return None
    width = min(NEIGHBOURS, max(map(len, runs)))
    windows = [run[i : i + width] for run in runs for i in range(len(run) - width + 1)]
    best = max(windows, key=lambda window: sum(value for _, value in window))
    mean = sum(value for _, value in best) / width
    return VolumeAnswer(1 / (1 + math.exp(-mean)), best[0][0], best[-1][0])
