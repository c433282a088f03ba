"""Black and white of a volume, apart from values that fill its surroundings."""

from __future__ import annotations

import math

import numpy as np

from core.scan.errors import not_numbers_error

MAX_PERCENTILE_VALUES = 1_000_000  # values that the percentiles are taken from
# A fill value lies at least so far from all others, in parts of their range. 0 is the usual black
# and must lie farther.
FAR, FAR_FROM_ZERO = 2.0, 4.0
# Declared padding this far below the range of all others, in parts of it, is air like any other
AIR = (-0.1, 0.5)
FILL_NOTE = "Fill values (padding, or no numbers) are shown as black."


def find_levels(
    data: np.ndarray,
    display: tuple[float, float] | None = None,
    padding: np.ndarray | None = None,
    is_inverted: bool = False,
) -> tuple[tuple[float, float], list[str]]:
    """Find the darkest and brightest level; fill values become black in `data`, with a note.

    Fill is NaN, padding that the file declares, and one value of at least 1 % of the volume far
    below or above all others.

    Args:
        data: (S, H, W) float32, changed in place where it holds fill.
        display: the levels of a file that defines them; then no undeclared fill is looked for.
        padding: lowest and highest value of each slice's padding (S, 2), NaN for none.
        is_inverted: low values are bright, so that black is the larger level.

    Raises:
        ScanError: all values are NaN.
    """
    fill = _find_fill(data, display is None, padding, is_inverted)
    levels = display or compute_percentiles(data, fill)
    if fill is None:
        return levels, []
    black = max(levels[1], data.max(where=~fill, initial=-np.inf))
    if not is_inverted:
        black = min(levels[0], data.min(where=~fill, initial=np.inf))
    np.putmask(data, fill, black)
    return levels, [FILL_NOTE]


def compute_percentiles(data: np.ndarray, fill: np.ndarray | None = None) -> tuple[float, float]:
    """Compute the 1st and 99th percentile, from evenly spaced values of a large array.

    With minimum and maximum one bright vessel or wire would darken the whole picture.
    Minimum and maximum where both are equal, as in a volume that is almost all air.
    """
    values = _sample(data, fill)
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 0.0)
    if low < high:
        return float(low), float(high)
    inside = True if fill is None else ~fill
    low, high = data.min(where=inside, initial=np.inf), data.max(where=inside, initial=-np.inf)
    return float(low), float(high)


def _sample(data: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    step = max(1, data.size // MAX_PERCENTILE_VALUES)
    while math.gcd(step, data.shape[-1]) > 1:  # else the same columns again and again
        step += 1
    values: np.ndarray = data.flat[::step]
    return values if fill is None else values[~fill.flat[::step]]


def _find_fill(
    data: np.ndarray, seeks: bool, padding: np.ndarray | None, is_inverted: bool
) -> np.ndarray | None:
    """Find the fill of a volume, bool (S, H, W); None where there is none."""
    fill = None
    if np.isnan(data.min()):
        fill = np.isnan(data)
        if fill.all():
            raise not_numbers_error()
    if padding is not None and not np.isnan(padding).all():
        low, high = padding.T[:, :, None, None]
        declared = (data >= low) & (data <= high)
        both = declared if fill is None else declared | fill
        if declared.any() and not both.all() and not _is_air(data, declared, both, is_inverted):
            fill = both
    for pick in (np.min, np.max) if seeks else ():
        value = pick(data) if fill is None else pick(data[~fill])
        if value in compute_percentiles(data, fill):
            alone = data == value
            both = alone if fill is None else alone | fill
            rest = _sample(data, both)
            if rest.size and _is_far(value, data, both, rest):
                fill = both
    return fill


def _is_air(data: np.ndarray, padding: np.ndarray, fill: np.ndarray, is_inverted: bool) -> bool:
    """Return True for padding that is dark without help and does not squeeze the levels."""
    low, high = compute_percentiles(data, fill)
    least, most = data.min(where=padding, initial=np.inf), data.max(where=padding, initial=-np.inf)
    distance = least - high if is_inverted else low - most
    return bool(AIR[0] * (high - low) <= distance <= AIR[1] * (high - low))


def _is_far(value: float, data: np.ndarray, fill: np.ndarray, rest: np.ndarray) -> bool:
    low, high = np.percentile(rest, [1, 99])
    least = data.min(where=~fill, initial=np.inf)
    most = data.max(where=~fill, initial=-np.inf)
    gap = max(least - value, value - most)
    return bool(0 < (high - low) * (FAR if value else FAR_FROM_ZERO) < gap)
