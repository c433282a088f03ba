"""An opened file: slices in its own units, their metadata, and each slice's canonical scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from core.scan.canonical import SIZE, to_canonical


class Doubt(str):
    """A note that makes the picture worth doubting."""


class Window(NamedTuple):
    """A range of values to display: `centre` and `width` in the file's own units."""

    name: str
    centre: float
    width: float


@dataclass(frozen=True, eq=False)
class Volume:
    """A picture, a series or a volume as it was opened; a picture is a volume of one slice.

    `levels` is what the models see as black and white. It comes from the values of the whole
    volume (1st to 99th percentile), or is the file's own range where that is a display range: 0 to
    255 for 8-bit pictures. Fill values have no part in it: in `data` they are black. The display
    window has no part in it either and changes no reading. Where low values are bright
    (MONOCHROME1), black is the larger number.
    """

    data: np.ndarray  # (S, H, W) float32, in the file's own units; its fill is black
    levels: tuple[float, float]  # the values read as 0 and as 1
    kind: str  # "picture", "DICOM" or "NIfTI"
    own_windows: tuple[Window, ...] = ()  # those the file brings along
    spacing: tuple[float, float] | None = None  # mm from row to row and from column to column
    gap: float | None = None  # mm from slice to slice
    marks: tuple[str, str, str, str] | None = None  # of R L A P S I: left, right, top, bottom
    notes: tuple[str, ...] = ()  # for the reader, one sentence each
    is_in_mm: bool = True  # False where `spacing` gives the proportions of pixels alone

    def __post_init__(self) -> None:
        self.data.flags.writeable = False

    @property
    def doubts(self) -> tuple[str, ...]:
        """The notes that make the picture worth doubting, to be said beside every output."""
        return tuple(str(note) for note in self.notes if isinstance(note, Doubt))

    def __len__(self) -> int:
        return len(self.data)

    @property
    def middle(self) -> int:
        """Index of the default slice, from 0."""
        return len(self) // 2

    @property
    def is_inverted(self) -> bool:
        """True where low values are bright."""
        return self.levels[0] > self.levels[1]

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Windows to choose from: the file's own, "auto" (what the models see), and "full"."""
        full = float(self.data.min()), float(self.data.max())
        made = (
            Window(name, (low + high) / 2, max(high - low, math.ulp(1.0)))
            for name, (low, high) in {"auto": sorted(self.levels), "full": full}.items()
        )
        return (*self.own_windows, *made)

    def slice(self, index: int | None = None, size: int = SIZE) -> Tensor:
        """Return the canonical scan of a slice: (1, size, size) in [0, 1], on the 8-bit grid.

        Args:
            index: which one, from 0; the middle one if not given.
            size: side of the square result in pixels.

        Raises:
            IndexError: there is no such slice.
            ScanError: the slice is blank, as the outermost ones of a head often are.
        """
        index = self.middle if index is None else index
        if not 0 <= index < len(self):
            raise IndexError(f"slice must be in [0, {len(self) - 1}], got {index}")
        black, white = self.levels
        grey = (self.data[index] - black) / (white - black or math.ulp(1.0))
        return to_canonical(self._square_pixels(grey.clip(0, 1), size), size)

    def _square_pixels(self, grey: np.ndarray, size: int) -> np.ndarray:
        """Resample to square pixels, so that anisotropic spacing does not distort the head."""
        if self.spacing is None or math.isclose(*self.spacing, rel_tol=0.01):
            return grey
        height, width = (n * mm for n, mm in zip(grey.shape, self.spacing, strict=True))
        scale = size / max(height, width)
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        image = Image.fromarray(np.ascontiguousarray(grey))
        return np.asarray(image.resize(shape, Image.Resampling.BILINEAR))
