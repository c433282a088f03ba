"""Outputs for one scan of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from core.pipeline import MedFedPure
from core.scan import from_uint8
from demo.analysis.volume import SliceReading
from demo.rendering.tumour_map import summarize_map
from demo.report.document import hash_levels


@dataclass(frozen=True)
class Reading:
    """Outputs for one scan; the field names are columns of the CSV, but for `expert_shares`."""

    score_name: str
    score: float
    tau: float
    flagged: bool
    t_star: int
    tumour_probability_undefended: float
    tumour_probability: float
    can_judge: bool
    stable: bool | None  # None: it cannot judge, or stability was not tried
    stable_radius: float | None  # largest radius tried without a flip
    stability_radius: float  # that decides
    purifying_turns: bool  # the answer would be another without purifying
    expert_shares: tuple[float, ...]  # of the log-odds of `tumour_probability`, a column each
    operating_point: float  # plus the shares: the log-odds
    overall_share: float  # part of the shares' sum that no tumour map holds
    tumour_regions: int | None  # of the tumour map; None: no map, or it cannot judge
    tumour_area: float | None  # share of the head that they cover; None with `tumour_regions`
    where: str  # in words; empty with them
    ms: float
    seed: int
    scan_sha256: str

    @property
    def log_odds(self) -> float:
        """Log-odds of a tumour, with defence."""
        return sum(self.expert_shares) + self.operating_point

    @property
    def differs(self) -> bool:
        """True if the classes without and with defence differ."""
        return self.can_judge and (self.tumour_probability_undefended >= 0.5) != (
            self.tumour_probability >= 0.5
        )

    def to_slice(self) -> SliceReading:
        """Return the outputs as those for a slice of a volume."""
        return SliceReading(
            self.score, self.flagged, self.can_judge, self.log_odds, self.tumour_area
        )

    def to_columns(self) -> dict[str, Any]:
        """Return the values of the CSV by column."""
        values = asdict(self)
        shares = enumerate(values.pop("expert_shares"), 1)
        return values | {_name_share(k): share for k, share in shares}


def list_columns(experts: int) -> Iterator[str]:
    """Yield the columns of the CSV that a reading fills, of a mixture of so many experts."""
    for field in fields(Reading):
        if field.name == "expert_shares":
            yield from map(_name_share, range(1, experts + 1))
        else:
            yield field.name


def _name_share(expert: int) -> str:
    return f"expert_{expert}_share"


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
        d.stable, d.stable_radius, d.stability_radius, d.purifying_turns,
        tuple(d.expert_shares.tolist()), d.operating_point, d.overall_share,
        found["tumour_regions"], found["tumour_area"], found["where"],
        d.timings_ms["total"], d.seed, hash_levels(levels),
    )  # fmt: skip
