"""Readings of the slices of a volume, and one answer for the volume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import ScanError, Volume
from demo.analysis.regions import find_regions

NEIGHBOURS = 3  # slices whose mean decides: a tumour reaches through several, a mistake often not
MAX_PASSED_OVER = 2  # slices within them: further apart, they would not be neighbours


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
    slices: tuple[int, ...]  # judged, from 0
    apart: int  # judged slices too far from others for the rule


def read_slices(
    system: MedFedPure, volume: Volume, seed: int = 0
) -> Iterator[dict[int, SliceReading | None]]:
    """Read the slices in batches; yield each batch's readings by index from 0, None where blank.

    Every slice is purified with noise of the same seed.
    """
    for start in range(0, len(volume), BATCH_SIZE):
        readings: dict[int, SliceReading | None] = {}
        scans: dict[int, Tensor] = {}
        for index in range(start, min(start + BATCH_SIZE, len(volume))):
            readings[index] = None
            try:
                scans[index] = volume.slice(index)
            except ScanError:
                continue  # blank, as the outermost slices of a head often are
        if scans:
            x, seeds = torch.stack(tuple(scans.values())), [seed] * len(scans)
            found = system.read_batch(x, seeds, try_stability=False)
            readings |= dict(zip(scans, map(SliceReading.of, found), strict=True))
        yield readings


def answer_volume(readings: Mapping[int, SliceReading | None]) -> VolumeAnswer | None:
    """Answer for a volume by its slices' readings; None without a slice that can be judged.

    The rule: the highest mean of the log-odds over `NEIGHBOURS` slices in a row, where slices that
    are blank or cannot be judged are passed over, at most `MAX_PASSED_OVER` of them. Where no
    slices lie so near, fewer decide. The mean over all slices would hide a tumour that fills few of
    them.
    """
    judged = {n: r.log_odds for n, r in sorted(readings.items()) if r is not None and r.can_judge}
    if not judged:
        return None
    windows = _list_windows(tuple(judged))
    best = max(windows, key=lambda window: sum(judged[n] for n in window))
    mean = sum(judged[n] for n in best) / len(best)
    return VolumeAnswer(1 / (1 + math.exp(-mean)), best, len(judged) - len(set().union(*windows)))


def _list_windows(judged: tuple[int, ...]) -> list[tuple[int, ...]]:
    """List the neighbours among judged slices, of the greatest width at which there are any."""
    for width in range(NEIGHBOURS, 0, -1):
        windows = [judged[i : i + width] for i in range(len(judged) - width + 1)]
        near = [w for w in windows if w[-1] - w[0] < width + MAX_PASSED_OVER]
        if near:
            return near
    return []
