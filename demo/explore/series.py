"""Series that a visitor has opened, its chosen slice, and the scores of its slices."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from core.scan import Volume, to_uint8
from demo.analysis.volume import SliceReading, VolumeAnswer, answer_volume

DISPLAY_LEVELS = (0.0, 255.0)
SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head end", "I": "foot end"}


@dataclass(eq=False)
class Series:
    """Volume with a chosen slice; a picture is a series of one slice."""

    volume: Volume
    index: int = -1  # -1: the middle slice
    refusal: str = ""  # reason to read it only on request
    readings: dict[int, SliceReading | None] = field(default_factory=dict)  # None: blank
    tau: float = 0.0  # of the system that scored
    summary: str = ""  # of the readings
    answer: str = ""  # for the volume, once all slices are read
    read_with: tuple[int | None, str, str] | None = None  # hospital, score and policy of readings
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def __post_init__(self) -> None:
        if not -1 <= self.index < len(self.volume):
            raise ValueError(f"index must be in [0, {len(self.volume) - 1}], got {self.index}")
        if self.index < 0:
            self.index = len(self.volume) // 2

    def get_levels(self, index: int | None = None) -> np.ndarray:
        """Return a slice, by default the chosen one, as uint8 levels (1, 224, 224).

        Raises:
            ScanError: the slice is blank.
        """
        return to_uint8(self.get_scan(index))

    def get_scan(self, index: int | None = None) -> Tensor:
        """Return a slice, by default the chosen one, as a scan (1, 224, 224) in [0, 1]."""
        return self.volume.slice(self.index if index is None else index)

    def get_slider_value(self) -> dict[str, Any]:
        """Return the slice slider's value: number of slices, chosen slice, and readings."""
        readings = dict(self.readings)  # a copy, as another thread may add to them
        found = {n: r for n, r in sorted(readings.items()) if r is not None}
        judged = {n: r for n, r in found.items() if r.can_judge}
        answer = answer_volume(readings) if self.answer else None
        return {
            "key": self.key,
            "count": len(self.volume),
            "index": self.index,
            "scores": [[n, r.score] for n, r in found.items()],
            "tumour": [[n, r.tumour_probability] for n, r in judged.items()],
            "area": [[n, r.area] for n, r in judged.items() if r.area is not None],
            "tau": self.tau,
            "line": self.summary,
            "answer": self.answer,
        } | ({"best": _find_highest(judged, answer)} if answer else {})

    def describe(self) -> list[str]:
        """Describe the file's slices, one sentence per fact."""
        v = self.volume
        rows, columns = v.data.shape[1:]
        size = f"{columns} x {rows} pixels"
        if v.kind == "picture":
            return [f"A picture of {size}.", *v.notes]
        count = "one slice" if len(v) == 1 else f"{len(v)} slices"
        facts = [f"{v.kind}, {count} of {size}."]
        if v.spacing is not None and v.is_in_mm:
            apart = f", {v.gap:.3g} mm apart" if v.gap and len(v) > 1 else ""
            facts.append(f"Pixels of {v.spacing[1]:.3g} x {v.spacing[0]:.3g} mm{apart}.")
        if v.marks is None:
            facts.append("The file does not say which side is left.")
        else:
            facts.append(f"On the picture's left is the patient's {SIDES[v.marks[0]]}.")
        return [*facts, *v.notes]


def _find_highest(judged: Mapping[int, SliceReading], answer: VolumeAnswer) -> int:
    """Find the slice with the highest log-odds among those that a volume's answer rests on."""
    return max(answer.slices, key=lambda n: judged[n].log_odds)


def build_series(levels: np.ndarray) -> Series:
    """Build a series of one canonical scan from its uint8 levels (1, 224, 224)."""
    return Series(Volume(levels.astype(np.float32), DISPLAY_LEVELS, "picture"))
