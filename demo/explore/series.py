"""The volume that a visitor has opened, its chosen slice, and the scores of slices read."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from core.scan import Volume, to_uint8

DISPLAY_LEVELS = (0.0, 255.0)
SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head end", "I": "foot end"}


@dataclass(eq=False)
class Series:
    """A volume and its chosen slice; a picture is a series of one."""

    volume: Volume
    index: int = -1  # the middle slice where none is given
    refusal: str = ""  # why it is read only on request; empty where it may be read
    scores: dict[int, float | None] = field(default_factory=dict)  # None: the slice is blank
    strange: set[int] = field(default_factory=set)  # slices read that cannot be judged
    tau: float = 0.0  # of the system that scored
    said: str = ""  # of the scores
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def __post_init__(self) -> None:
        if not -1 <= self.index < len(self.volume):
            raise ValueError(f"index must be in [0, {len(self.volume) - 1}], got {self.index}")
        if self.index < 0:
            self.index = len(self.volume) // 2

    def levels(self, index: int | None = None) -> np.ndarray:
        """The uint8 levels (1, 224, 224) that the models read of a slice, by default the chosen.

        Raises:
            ScanError: the slice is blank.
        """
        return to_uint8(self.scan(index))

    def scan(self, index: int | None = None) -> Tensor:
        """A slice, by default the chosen, as a canonical scan (1, 224, 224) in [0, 1]."""
        return self.volume.slice(self.index if index is None else index)

    def marks(self) -> dict[str, Any]:
        """For the slice slider: how many slices, which one, and the scores of those read."""
        return {
            "key": self.key,
            "count": len(self.volume),
            "index": self.index,
            "scores": [[n, score] for n, score in sorted(self.scores.items())],
            "tau": self.tau,
            "line": self.said,
        }

    def facts(self) -> list[str]:
        """The file's own description of its slices, one sentence per fact."""
        v = self.volume
        rows, columns = v.data.shape[1:]
        size = f"{columns} x {rows} pixels"
        if v.kind == "picture":
            return [f"A picture of {size}.", *v.notes]
        count = "one slice" if len(v) == 1 else f"{len(v)} slices"
        said = [f"{v.kind}, {count} of {size}."]
        if v.spacing is not None:
            apart = f", {v.gap:.3g} mm apart" if v.gap and len(v) > 1 else ""
            said.append(f"Pixels of {v.spacing[1]:.3g} x {v.spacing[0]:.3g} mm{apart}.")
        if v.marks is None:
            said.append("The file does not say which side is left.")
        else:
            said.append(f"On the picture's left is the patient's {SIDES[v.marks[0]]}.")
        return [*said, *v.notes]


def of_levels(levels: np.ndarray) -> Series:
    """A series of one canonical scan, from its uint8 levels (1, 224, 224)."""
    return Series(Volume(levels.astype(np.float32), DISPLAY_LEVELS, "picture"))
