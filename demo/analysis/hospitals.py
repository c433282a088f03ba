"""Readings of one scan by the system of every hospital of a (simulated) federation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.memoize import shared_computation

if TYPE_CHECKING:
    from core.weights import Systems


@dataclass(frozen=True)
class HospitalReading:
    """Output of one hospital's system for a scan."""

    hospital: int
    can_judge: bool
    tumour_probability: float
    flagged: bool
    score: float
    tau: float
    t_star: int


@torch.no_grad()
def read_at_hospitals(systems: Systems, scan: Tensor, seed: int) -> tuple[HospitalReading, ...]:
    """Read a scan (1, 224, 224) with the system of every hospital.

    Shared modules compute each input once; the classifiers differ, so ten hospitals take about
    six times as long as one.
    """
    with shared_computation():
        readings = {n: system.read(scan, seed) for n, system in systems.items() if n is not None}
    return tuple(
        HospitalReading(n, d.can_judge, d.tumour_probability, d.flagged, d.score, d.tau, d.t_star)
        for n, d in readings.items()
    )
