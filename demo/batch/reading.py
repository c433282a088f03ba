"""Outputs for one scan of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.pipeline import MedFedPure
from core.scan import from_uint8
from demo.rendering.tumour_map import summarize_map
from demo.report.document import hash_levels


@dataclass(frozen=True)
class Reading:
    """Outputs for one scan; the field names are columns of the CSV."""

    score_name: str
    score: float
    tau: float
    flagged: bool
    t_star: int
    tumour_probability_undefended: float
    tumour_probability: float
    can_judge: bool
    tumour_regions: int | None  # of the tumour map; None: no map, or it cannot judge
    tumour_area: float | None  # share of the head that they cover; None with `tumour_regions`
    where: str  # in words; empty with them
    ms: float
    seed: int
    scan_sha256: str

    @property
    def differs(self) -> bool:
        """True if the classes without and with defence differ."""
        return self.can_judge and (self.tumour_probability_undefended >= 0.5) != (
            self.tumour_probability >= 0.5
        )


def read_levels(system: MedFedPure, levels: np.ndarray, seed: int) -> Reading | str:
    """Read one scan (1, 224, 224) uint8; return its reading, or the error as a sentence."""
    try:
        d = system.read(from_uint8(levels), seed)
    except (RuntimeError, ValueError, MemoryError) as error:
        return f"The reading failed: {error}"
    found = summarize_map(d)
    return Reading(
        d.score_name, d.score, d.tau, d.flagged, d.t_star,
        d.tumour_probability_undefended, d.tumour_probability, d.can_judge,
        found["tumour_regions"], found["tumour_area"], found["where"],
        d.timings_ms["total"], d.seed, hash_levels(levels),
    )  # fmt: skip
