"""Readings of an analysed scan by the system of every hospital of a (simulated) federation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from core.memoize import shared_computation
from demo.analysis.analysis import Analysis, HospitalReading

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.weights import Systems


class HospitalReader:
    """Reader of the scans of one analysis at one hospital after another.

    `generation` is that of the request; a newer one makes the reader obsolete.
    """

    def __init__(self, systems: Systems, analysis: Analysis, generation: int = 0) -> None:
        self.analysis, self.generation = analysis, generation
        numbers = sorted(n for n in systems if n is not None)
        self.systems = {n: systems[n] for n in numbers}
        self.readings: dict[str, tuple[HospitalReading, ...]] = {}  # by the scan's name
        self._known: list[Any] = []  # results of the parts that all hospitals share

    @property
    def count(self) -> int:
        """Number of hospitals that have read."""
        return min((len(readings) for readings in self.readings.values()), default=0)

    @property
    def is_done(self) -> bool:
        """True if every hospital has read."""
        return self.count == len(self.systems)

    @torch.no_grad()
    def read_next(self) -> Mapping[str, tuple[HospitalReading, ...]]:
        """Read the scans at the next hospital; return the readings so far, by the scan's name.

        Shared parts of the systems compute each scan once; the chosen hospital has read already.
        """
        hospital = [*self.systems][self.count]
        named = self.analysis.readings
        found = [d for _, d in named]
        if hospital != self.analysis.hospital:
            system = self.systems[hospital].with_options(**self.analysis.options)
            with shared_computation(self._known):
                found = system.read_batch(
                    torch.stack([d.scan for d in found]),
                    [d.seed for d in found],
                    try_stability=False,
                )
        for (name, _), d in zip(named, found, strict=True):
            self.readings[name] = *self.readings.get(name, ()), _summarize(hospital, d)
        return dict(self.readings)


def _summarize(hospital: int, d: Diagnosis) -> HospitalReading:
    return HospitalReading(
        hospital, d.can_judge, d.tumour_probability, d.flagged, d.score, d.tau, d.t_star
    )
