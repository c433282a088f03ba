"""Black and white of a volume, apart from values that fill its surroundings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.scan.errors import not_numbers_error
from core.scan.volume import Doubt, Window

MAX_PERCENTILE_VALUES = 1_000_000  # values that the percentiles are taken from
# A fill value lies at least so far from all others, in parts of their range: less far if it frames
# the pictures on all four sides. 0 is the usual black and must lie farther there.
FAR, FAR_AS_FRAME, FAR_FROM_ZERO = 2.0, 0.5, 4.0
# Declared padding this far below the range of all others, in parts of it, is air like any other
AIR = (-0.1, 0.5)
MIN_PADDING = 0.001  # share of a slice; a few equal values at the edge are chance
PASSES = 2  # along rows and columns, to follow padding from the edge around corners
MIN_BRIGHTNESS = 0.25  # share of white; of 1,794 scans of four sources 18 are darker, all of one
MIN_FILL = 0.9  # share of a range that the largest value must reach
FILL_NOTE = "Fill values (padding, or no numbers) are shown as black."


def find_levels(
    data: np.ndarray,
    display: tuple[float, float] | None = None,
    padding: np.ndarray | None = None,
    is_inverted: bool = False,
    whites: Sequence[float] = (),
) -> tuple[tuple[float, float], list[str]]:
    """Find the darkest and brightest level; fill values become black in `data`, with a note.

    Fill is NaN, padding that the file declares, and one value far below or above all others that
    makes at least 1 % of the volume and reaches the edge of most slices.

    Args:
        data: (S, H, W) float32, changed in place where it holds fill.
        display: the levels of a file that defines them.
        padding: lowest and highest value of each slice's padding (S, 2), NaN for none.
        is_inverted: low values are bright, so that black is the larger level.
        whites: usual whites, of which the first one that the values fill gives the levels.

    Raises:
        ScanError: all values are NaN.
    """
    if padding is not None and not np.isnan(padding).all():
        _clear_padding(data, padding, is_inverted)
    for is_high in (False, True):
        if display is None or is_high != is_inverted:  # black of defined levels stays black
            _clear_surround(data, is_high, is_high != is_inverted)
    low, high = _find_ends(data)
    if math.isnan(low):
        raise not_numbers_error()
    filled = (one for one in whites if low >= 0 and MIN_FILL * one <= high <= one)
    levels = display or next(((0.0, one) for one in filled), None) or compute_percentiles(data)
    black = max(levels[1], high) if is_inverted else min(levels[0], low)
    notes = [FILL_NOTE] if np.isnan(data.min()) else []
    for one in data if notes else ():  # slice by slice, to save memory
        np.nan_to_num(one, copy=False, nan=black)
    return levels, notes


def describe_darkness(
    data: np.ndarray, levels: tuple[float, float], windows: Sequence[Window] = ()
) -> list[Doubt]:
    """Return a doubt about a picture of fixed levels of which all but 1 % is dark."""
    black, white = levels
    brightest = max((value - black) / (white - black) for value in compute_percentiles(data))
    if brightest >= MIN_BRIGHTNESS:
        return []
    shown = f"The picture is dark: it reaches {brightest:.0%} of full brightness"
    for _, centre, width in [one for one in windows if one.width < abs(white - black)][:1]:
        low, high = centre - width / 2, centre + width / 2
        shown += f", and the file's own window, {low:g} to {high:g}, is not used"
    return [Doubt(f"{shown}.")]


def compute_percentiles(data: np.ndarray) -> tuple[float, float]:
    """Compute the 1st and 99th percentile without NaN, of a large array by a sample.

    With minimum and maximum one bright vessel or wire would darken the whole picture.
    Minimum and maximum where both are equal, as in a volume that is almost all air.
    """
    values = data.flat[:: _find_step(data)]
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else _find_ends(data)


def _clear_padding(data: np.ndarray, padding: np.ndarray, is_inverted: bool) -> None:
    """Set declared padding to NaN; among the values of the tissue only from the edge inwards."""
    step = _find_step(data)
    thin = data.flat[::step]
    lowest, highest = padding[np.arange(0, data.size, step) // data[0].size].T
    is_padding = (thin >= lowest) & (thin <= highest)
    rest = thin[~is_padding & ~np.isnan(thin)]
    if not is_padding.any() or not rest.size:
        return
    low, high = compute_percentiles(rest)
    least, most = _find_ends(thin[is_padding])
    distance = least - high if is_inverted else low - most
    if AIR[0] * (high - low) <= distance <= AIR[1] * (high - low):
        return  # dark without help, and near enough
    is_far = max(rest.min() - most, least - rest.max()) > FAR_AS_FRAME * (high - low)
    for one, (lowest, highest) in zip(data, padding, strict=True):
        found = (one >= lowest) & (one <= highest)
        one[found if is_far else _connect_to_edge(found)] = np.nan


def _connect_to_edge(mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask (H, W) that reaches the edge, unless it is tiny."""
    found = mask.copy()
    found[1:-1, 1:-1] = False
    for turn in [*range(4)] * PASSES:
        reached, allowed = (np.rot90(one, turn) for one in (found, mask))  # views
        for n in range(1, len(reached)):
            reached[n] |= reached[n - 1] & allowed[n]
    return found if found.mean() >= MIN_PADDING else np.zeros_like(mask)


def _clear_surround(data: np.ndarray, is_high: bool, is_white: bool) -> None:
    """Set the lowest or highest value to NaN where it fills the surroundings of the tissue."""
    thin = data.flat[:: _find_step(data)]
    value = _find_ends(thin)[is_high]
    others = thin[thin != value]
    if not others.size or value not in compute_percentiles(thin):
        return
    shares, ends = [], []
    for one in data:
        is_value = one == value
        rest = one[~is_value & ~np.isnan(one)]
        if rest.size:  # an empty slice tells nothing of the others
            sides = is_value[[0, -1]], is_value[:, [0, -1]]
            shares.append(np.concatenate(sides, axis=None).mean())
            ends += [rest.min(), rest.max()]
    share = sorted(shares or [0.0])[(len(shares) - 1) // 2]  # that most slices have
    far = FAR_AS_FRAME if share == 1 else FAR
    distance = far if value or is_white else FAR_FROM_ZERO
    low, high = compute_percentiles(others)
    if share and 0 < distance * (high - low) < max(min(ends) - value, value - max(ends)):
        for one in data:
            one[one == value] = np.nan


def _find_step(values: np.ndarray) -> int:
    """Return the distance of evenly spaced ones of a large array's values."""
    step = max(1, values.size // MAX_PERCENTILE_VALUES)
    while math.gcd(step, values.shape[-1]) > 1:  # else the same columns again and again
        step += 1
    return step


def _find_ends(data: np.ndarray) -> tuple[float, float]:
    """Find the lowest and highest value; NaN if there is none."""
    return float(np.fmin.reduce(data, axis=None)), float(np.fmax.reduce(data, axis=None))
