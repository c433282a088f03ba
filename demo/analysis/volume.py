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

    The rule: the highest mean of the log-odds over `NEIGHBOURS` slices in a row, where slices that
    cannot be judged are passed over. The mean over all slices would hide a tumour that fills few of
    them.
    """
    judged = [
        (index, found.log_odds)
        for index, found in sorted(readings.items())
        if found is not None and found.can_judge
    ]
    if not judged:
        return None
    width = min(NEIGHBOURS, len(judged))
    windows = [judged[i : i + width] for i in range(len(judged) - width + 1)]
    best = max(windows, key=lambda window: sum(value for _, value in window))
    mean = sum(value for _, value in best) / width
    return VolumeAnswer(1 / (1 + math.exp(-mean)), best[0][0], best[-1][0])
