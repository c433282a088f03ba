"""Reasons of a detector's score: what each measurement adds to it, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from core.diagnosis import Diagnosis


class Reason(NamedTuple):
    """Measurement that raises or lowers the fused score, compared with an average clean scan."""

    name: str  # of core.features.FEATURES
    points: float  # of the score
    share: float  # of all points with the same sign, in [0, 1]


@dataclass(frozen=True)
class Reasons:
    """Reasons of one reading's fused score, largest first; usual score and points add up to it."""

    raised: tuple[Reason, ...]
    lowered: tuple[Reason, ...]
    usual: float  # score of an average clean scan
    map: Tensor | None  # (H / p, W / p) points of the first that raised it, in each patch

    @property
    def strongest(self) -> Reason | None:
        """Measurement that raised the score most; None if all are at or below usual."""
        return self.raised[0] if self.raised else None


def find_reasons(d: Diagnosis) -> Reasons:
    """Sort a reading's contributions by size; those of 0 are left out."""
    raised = _share_out({k: v for k, v in d.contributions.items() if v > 0})
    lowered = _share_out({k: v for k, v in d.contributions.items() if v < 0})
    return Reasons(raised, lowered, d.usual_score, d.evidence[raised[0].name] if raised else None)


def _share_out(points: dict[str, float]) -> tuple[Reason, ...]:
    total = sum(points.values())
    found = (Reason(name, value, value / total) for name, value in points.items())
    return tuple(sorted(found, key=lambda reason: -reason.share))
