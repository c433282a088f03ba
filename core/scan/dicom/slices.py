"""Slices of DICOM files and their geometry: place, orientation, and size of the pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.scan.dicom.header import Header

MEASURES = "PixelMeasuresSequence"
PLANES = ("sagittal", "coronal", "axial")  # by the axis of the patient that the normal follows
SPACINGS = ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio")


class Slice(NamedTuple):
    """A picture of a file: its number among the files, and among the pictures of that file."""

    file: int
    picture: int
    header: Header

    @property
    def frame(self) -> int:
        """Number of the frame that holds the picture, itself or as a tile."""
        return self.picture // self.header.tiles

    @property
    def tiles(self) -> list[Slice]:
        """The slices of the frame that begins with this one."""
        return [self._replace(picture=self.picture + n) for n in range(self.header.tiles)]

    @property
    def directions(self) -> np.ndarray | None:
        """Unit vectors (2, 3) of rows and columns, towards the patient's left, back and head."""
        found = np.array(self.numbers("ImageOrientationPatient", 6, "PlaneOrientationSequence"))
        lengths = np.linalg.norm(found.reshape(-1, 3), axis=-1, keepdims=True)
        return found.reshape(2, 3) / lengths if found.size and lengths.all() else None

    @property
    def position(self) -> list[float]:
        """The first pixel's place in the patient in mm (3); [] where it is unknown."""
        return self.numbers("ImagePositionPatient", 3, "PlanePositionSequence")

    @property
    def plane(self) -> str:
        """Name of the plane: sagittal, coronal or axial; empty where it is unknown."""
        directions = self.directions
        return "" if directions is None else PLANES[int(np.abs(np.cross(*directions)).argmax())]

    @property
    def marks(self) -> tuple[str, str, str, str] | None:
        """The patient's sides at the left, right, top and bottom of the picture."""
        if (directions := self.directions) is None:
            return None
        row, column = directions
        return _name_side(-row), _name_side(row), _name_side(-column), _name_side(column)

    @property
    def gap(self) -> float:
        """The declared distance from slice to slice in mm; 0 if it is unknown."""
        apart = self.numbers("SpacingBetweenSlices", 1, MEASURES)
        return next(iter(apart or self.numbers("SliceThickness", 1, MEASURES)), 0.0)

    def numbers(self, keyword: str, count: int = 0, group: str = "") -> list[float]:
        """Return an attribute's values, as `Header.numbers` does."""
        return self.header.numbers(keyword, count, self.frame, group)

    def read_spacing(self) -> tuple[tuple[float, float] | None, bool]:
        """Read distances of rows and of columns; False where they are not mm in the patient."""
        for keyword in SPACINGS:
            found = self.numbers(keyword, 2, MEASURES)
            if found and min(found) > 0:
                return (found[0], found[1]), keyword == "PixelSpacing"
        return None, True


def _name_side(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return ("LPS" if direction[axis] > 0 else "RAI")[axis]
