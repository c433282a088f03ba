"""Adaptation of a batch to its site: for the session, from its readings, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.detector import find_threshold
from core.pipeline import MedFedPure
from core.site.doubts import MIN_SCANS, check_scans, describe_doubt
from core.site.operating_point import find_shift
from demo.batch.reading import Reading

MIN_PROBABILITY = 1e-7  # keeps log-odds finite


@dataclass(frozen=True)
class Site:
    """Threshold of the detector at a site, and what was counted before the adaptation."""

    tau: float
    scans: int  # that can be judged
    tumours: int
    alarms: int
    doubt: str  # why the scans look like one class


@dataclass(frozen=True)
class Shifts:
    """Shifts of the log-odds of a tumour, with and without defence."""

    defended: float = 0.0
    undefended: float = 0.0

    def move(self, reading: Reading) -> Reading:
        """Return a reading at the site's operating points, where no stability was tried."""
        if self == Shifts():
            return reading
        if self.defended:
            reading = replace(reading, stable=None, stable_radius=None)
        return replace(
            reading,
            operating_point=reading.operating_point + self.defended,
            tumour_probability=_shift(reading.tumour_probability, self.defended),
            tumour_probability_undefended=_shift(
                reading.tumour_probability_undefended, self.undefended
            ),
        )


def measure_site(system: MedFedPure, readings: Sequence[Reading]) -> Site:
    """Measure the site that a batch is from.

    Raises:
        SiteError: the readings do not allow it.
    """
    check_scans(torch.tensor([not r.can_judge for r in readings], dtype=torch.bool))
    judged = [r for r in readings if r.can_judge]
    log_odds = _to_log_odds([r.tumour_probability for r in judged])
    share = system.config.detector
    false_alarms = share.false_alarms if share.threshold == "calibrated" else share.kappa
    return Site(
        tau=find_threshold(torch.tensor([r.score for r in judged]), false_alarms),
        scans=len(judged),
        tumours=int((log_odds >= 0).sum()),
        alarms=sum(r.flagged for r in judged),
        doubt=describe_doubt(log_odds),
    )


def find_shifts(readings: Sequence[Reading], prevalence: float) -> Shifts:
    """Find the operating points of a batch; none is moved while fewer than `MIN_SCANS` are read."""
    judged = [r for r in readings if r.can_judge]
    if len(judged) < MIN_SCANS:
        return Shifts()
    return Shifts(
        find_shift(_to_log_odds([r.tumour_probability for r in judged]), prevalence),
        find_shift(_to_log_odds([r.tumour_probability_undefended for r in judged]), prevalence),
    )


def set_threshold(system: MedFedPure, reading: Reading) -> Reading | None:
    """Return a reading at the system's threshold; None if its purification is of another depth."""
    if int(system.t_star(torch.tensor([reading.score]))) != reading.t_star:
        return None
    return replace(reading, tau=system.tau, flagged=reading.score > system.tau)


def _to_log_odds(probabilities: Sequence[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).logit(MIN_PROBABILITY)


def _shift(probability: float, shift: float) -> float:
    return float((_to_log_odds([probability]) + shift).sigmoid()) if shift else probability
