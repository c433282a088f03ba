"""Anatomical order of the slices of a stack, as far as their headers tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from core.scan.dicom.slices import Slice
from core.scan.volume import Doubt

SAME_PLACE = 0.01  # mm
UNPLACED = "The places of some slices are unknown or the same: they are in the order of their "
BY_LOCATION, BY_NUMBER = UNPLACED + "slice locations.", Doubt(UNPLACED + "numbers.")
BY_NAME = Doubt(UNPLACED + "file names, or as given.")
SEVERAL = "At some positions lie several pictures: the first of each is read."


class Stack(NamedTuple):
    """Slices in order, their places in mm along the normal (0 if unknown), and notes on both."""

    slices: list[Slice]
    places: list[float]
    notes: list[str]


def sort_slices(slices: Sequence[Slice]) -> Stack:
    """Sort by position, else slice location, else instance number, else as the files come.

    Of several pictures at one place, such as diffusion directions and time points, the first is
    kept; of several mosaics, each of which is a volume, all tiles of the first.
    """
    files = len({one.file for one in slices})
    numbers = [number for one in slices for number in one.numbers("InstanceNumber", 1)]
    is_numbered = len(numbers) == len(slices) and len({*numbers}) == files
    keys = numbers if is_numbered else range(len(slices))
    ordered = [one for _, one in sorted(zip(keys, slices, strict=True))]
    if (tiles := slices[0].header.tiles) > 1:
        note = [f"Of {len(ordered) // tiles} mosaics the first is read."]
        return Stack(ordered[:tiles], [0.0] * tiles, note if len(ordered) > tiles else [])
    normal = np.zeros(3) if slices[0].directions is None else np.cross(*slices[0].directions)
    single = ordered if files == len(ordered) else []  # a file's location is not that of its frames
    for places, note in (
        ([float(normal @ one.position) for one in ordered if one.position], []),
        ([place for one in single for place in one.numbers("SliceLocation", 1)], [BY_LOCATION]),
    ):
        if len(places) == len(ordered) and (kept := _keep_first(places)) != [0]:
            several = [SEVERAL] if len(kept) < len(places) else []
            return Stack([ordered[n] for n in kept], [places[n] for n in kept], several + note)
    note = [] if files == 1 else [BY_NUMBER if is_numbered else BY_NAME]
    return Stack(ordered, [0.0] * len(ordered), note)


def _keep_first(places: Sequence[float]) -> list[int]:
    """Return the indices of the first picture at each place, by place."""
    clusters: list[list[int]] = []
    for n in sorted(range(len(places)), key=places.__getitem__):
        if not clusters or places[n] - places[clusters[-1][0]] > SAME_PLACE:
            clusters.append([])
        clusters[-1].append(n)
    return [min(cluster) for cluster in clusters]
