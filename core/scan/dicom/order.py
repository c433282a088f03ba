"""Anatomical order of the slices of a stack, as far as their headers tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from core.scan.dicom.slices import Slice

SAME_PLACE = 0.01  # mm
BY_LOCATION = "The slices have no positions: they are in the order of their slice locations."
UNPLACED = "The slices do not say where they lie: they are in the order of their "
BY_NUMBER, BY_NAME = UNPLACED + "numbers.", UNPLACED + "file names, or as given."
SEVERAL = "Several pictures lie at each position: the first of each is read."


class Stack(NamedTuple):
    """Slices in order, their places in mm along the normal (0 if unknown), and notes on both."""

    slices: list[Slice]
    places: list[float]
    notes: list[str]


def sort_slices(slices: Sequence[Slice]) -> Stack:
    """Sort by position, else slice location, else instance number, else as the files come.

    Of several pictures at one place, such as diffusion directions and time points, the first is
    kept.
    """
    files = len({one.file for one in slices})
    numbers = [number for one in slices for number in one.numbers("InstanceNumber", 1)]
    is_numbered = len(numbers) == len(slices) and len({*numbers}) == files
    ordered = list(slices)
    if is_numbered:
        ordered = [one for _, one in sorted(zip(numbers, slices, strict=True))]
    normal = np.zeros(3) if slices[0].directions is None else np.cross(*slices[0].directions)
    for places, note in (
        ([place for one in ordered for place in _measure_place(one, normal)], []),
        ([place for one in ordered for place in one.numbers("SliceLocation", 1)], [BY_LOCATION]),
    ):
        if len(places) == len(ordered) and len({*places}) > 1:
            ranks = sorted(zip(places, range(len(places)), strict=True))
            kept = [ranks[0]]
            kept += [b for a, b in pairwise(ranks) if b[0] - a[0] > SAME_PLACE]
            several = [SEVERAL] if len(kept) < len(ranks) else []
            return Stack([ordered[n] for _, n in kept], [p for p, _ in kept], several + note)
    note = [] if files == 1 else [BY_NUMBER if is_numbered else BY_NAME]
    return Stack(ordered, [0.0] * len(ordered), note)


def _measure_place(one: Slice, normal: np.ndarray) -> list[float]:
    """Measure the place along the normal of the stack; empty where it is unknown."""
    position = one.numbers("ImagePositionPatient", 3, "PlanePositionSequence")
    tile = one.picture % one.header.tiles
    return [float(normal @ position) + tile * one.gap] if position else []
