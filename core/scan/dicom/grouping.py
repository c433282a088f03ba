"""Grouping of slices into stacks of one series, one orientation and one weighting."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from core.scan.dicom.header import Header
from core.scan.dicom.slices import Slice
from core.scan.errors import ScanError

MAX_ANGLE = np.radians(3)  # between slices of one stack; headers round their directions
MAX_GROUPS_NAMED = 3  # in a note
MAX_PICTURES = 20_000  # of all files together
MAX_PLANES = 100  # compared with each other; beyond, directions are rounded
TIMING = "MRTimingAndRelatedParametersSequence"
REPETITION, MAX_HEARTBEATS = "RepetitionTime", 2.5  # ratio of times that follow the heart
# Numbers that one stack shares, their place in a multi-frame file, and the ratio of neighbouring
# values from which they part.
NUMBERS = (
    ("EchoNumbers", "", 1.0),
    ("EchoTime", "", 1.02),
    ("EffectiveEchoTime", "MREchoSequence", 1.02),
    ("InversionTime", "", 1.1),
    ("InversionTimes", "MRModifierSequence", 1.1),
    (REPETITION, TIMING, 1.5),
    ("FlipAngle", TIMING, 1.1),
    ("DiffusionBValue", "MRDiffusionSequence", 1.1),
    ("PixelSpacing", "PixelMeasuresSequence", 1.02),
)


def group_slices(headers: Mapping[int, Header]) -> list[list[Slice]]:
    """Part the slices of numbered files into stacks, in order of their first slices.

    Raises:
        ScanError: there are too many.
    """
    if sum(header.pictures for header in headers.values()) > MAX_PICTURES:
        raise ScanError(f"There are more than {MAX_PICTURES:,} pictures: send a single series.")
    frames = ((n, k, header) for n, header in headers.items() for k in range(header.frames))
    groups = [[Slice(n, frame * header.tiles, header) for n, frame, header in frames]]
    ranks: list[Callable[..., Iterable[Hashable]]] = [
        partial(_rank, *numbers) for numbers in NUMBERS
    ]
    for split in (_read_identities, _compare_directions, *ranks):
        parts: dict[tuple[int, Hashable], list[Slice]] = {}
        for n, group in enumerate(groups):
            for one, key in zip(group, split(group), strict=True):
                parts.setdefault((n, key), []).append(one)
        groups = list(parts.values())
    return sorted([tile for one in group for tile in one.tiles] for group in groups)


def describe_rest(chosen: Sequence[Slice], stacks: Sequence[Sequence[Slice]]) -> list[str]:
    """Return notes on what is left out of the chosen stack's series, and on other series."""
    count = len({one[0].header.series for one in stacks})
    own = chosen[0].header.series
    rest = [one for one in stacks if one is not chosen and one[0].header.series == own]
    notes = []
    if count > 1:
        notes.append(f"There are {count} series: the largest, {len(chosen)} slices, is read.")
    if rest:
        named = join_some([_describe(one) for one in rest[:MAX_GROUPS_NAMED]], len(rest))
        rule = "Only slices of one plane, size and weighting are read together"
        notes.append(f"{rule}: {_describe(chosen)}; left out: {named}.")
    return notes


def join_some(words: Sequence[str], count: int) -> str:
    """Join the first words of `count`, and say how many more there are."""
    return ", ".join(words) + (f" and {count - len(words)} more" if count > len(words) else "")


def _describe(slices: Sequence[Slice]) -> str:
    first = slices[0]
    echo = first.numbers("EchoTime", 1) or first.numbers("EffectiveEchoTime", 1, "MREchoSequence")
    time = f" (echo time {echo[0]:g} ms)" if echo else ""
    return f"{len(slices)} {first.plane or 'of unknown plane'}{time}"


def _read_identities(slices: Sequence[Slice]) -> Iterable[Hashable]:
    for one in slices:
        header = one.header
        kind = str(header.group(one.frame, "MRImageFrameTypeSequence").get("FrameType"))
        yield header.series, header.weighting, header.shape, header.tiles, header.photometric, kind


def _compare_directions(slices: Sequence[Slice]) -> Iterable[Hashable]:
    known: list[np.ndarray] = []
    for one in slices:
        if (found := one.directions) is None:
            yield -1
            continue
        near = (n for n, old in enumerate(known) if (old * found).sum(-1).min() > np.cos(MAX_ANGLE))
        if (key := next(near, len(known))) == len(known) < MAX_PLANES:
            known.append(found)
        yield key if key < len(known) else tuple(found.round(1).flat)


def _rank(keyword: str, group: str, ratio: float, slices: Sequence[Slice]) -> Iterable[Hashable]:
    """Return the rank of each slice's value among those that differ; -1 where it is missing.

    Slices that all lie apart are taken for one weighting in two more cases: where some lack the
    value and the others agree, and where repetition times differ as those that follow the heart.
    """
    values = [next(iter(one.numbers(keyword, 0, group)), None) for one in slices]
    levels = sorted({value for value in values if value is not None})
    places = {tuple(one.position) for one in slices} if len({*values}) > 1 else {()}
    are_apart = () not in places and len(places) == len(slices)
    ratio = MAX_HEARTBEATS if are_apart and keyword == REPETITION else ratio
    starts = [high for low, high in pairwise(levels) if high > ratio * low]
    missing = 0 if are_apart and not starts else -1
    return [missing if value is None else bisect_right(starts, value) for value in values]
