"""Black and white of a volume, apart from values that fill its surroundings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.scan.errors import not_numbers_error
from core.scan.volume import Doubt, Window

MAX_PERCENTILE_VALUES = 1_000_000  # values that the percentiles are taken from
# A fill value lies at least so far from all others, in parts of their range. 0 is the usual black
# and must lie farther.
FAR, FAR_FROM_ZERO = 2.0, 4.0
# Declared padding this far below the range of all others, in parts of it, is air like any other
AIR = (-0.1, 0.5)
MIN_BRIGHTNESS = 0.25  # share of white; of 1,794 scans of four sources 18 are darker, all of one
FILL_NOTE = "Fill values (padding, or no numbers) are shown as black."


def find_levels(
    data: np.ndarray,
    display: tuple[float, float] | None = None,
    padding: np.ndarray | None = None,
    is_inverted: bool = False,
) -> tuple[tuple[float, float], list[str]]:
    """Find the darkest and brightest level; fill values become black in `data`, with a note.

    Fill is NaN, padding that the file declares, and one value far below or above all others that
    makes at least 1 % of the volume and reaches the edge of most slices.

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
    if not fill.any():
        return levels, []
    low, high = _find_ends(data, fill)
    black = max(levels[1], high) if is_inverted else min(levels[0], low)
    np.putmask(data, fill, black)
    return levels, [FILL_NOTE]


def describe_darkness(
    data: np.ndarray, levels: tuple[float, float], windows: Sequence[Window] = ()
) -> list[Doubt]:
    """Return a doubt about a picture of fixed levels of which all but 1 % is dark."""
    black, white = levels
    brightest = max(
        (value - black) / (white - black) for value in compute_percentiles(data, np.isnan(data))
    )
    if brightest >= MIN_BRIGHTNESS:
        return []
    shown = f"The picture is dark: it reaches {brightest:.0%} of full brightness"
    for _, centre, width in [one for one in windows if one.width < abs(white - black)][:1]:
        low, high = centre - width / 2, centre + width / 2
        shown += f", and the file's own window, {low:g} to {high:g}, is not used"
    return [Doubt(f"{shown}.")]


def compute_percentiles(data: np.ndarray, fill: np.ndarray) -> tuple[float, float]:
    """Compute the 1st and 99th percentile without fill, of a large array by a sample.

    With minimum and maximum one bright vessel or wire would darken the whole picture.
    Minimum and maximum where both are equal, as in a volume that is almost all air.
    """
    values = _thin_out(data)[~_thin_out(fill)]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 0.0)
    if low < high:
        return float(low), float(high)
    return _find_ends(data, fill)


def _find_fill(
    data: np.ndarray, seeks: bool, padding: np.ndarray | None, is_inverted: bool
) -> np.ndarray:
    """Find the fill of a volume, bool (S, H, W)."""
    fill: np.ndarray = np.isnan(data)
    if fill.all():
        raise not_numbers_error()
    if padding is not None and not np.isnan(padding).all():
        low, high = padding.T[:, :, None, None]
        declared = (data >= low) & (data <= high)
        both = declared | fill
        if declared.any() and not both.all() and not _is_air(data, declared, both, is_inverted):
            fill = both
    thin, thin_fill = _thin_out(data), _thin_out(fill)
    for end in (0, 1) if seeks else ():
        value = _find_ends(thin, thin_fill)[end]
        is_level = value in compute_percentiles(thin, thin_fill)
        if is_level and _is_far(value, thin, thin_fill | (thin == value)):
            alone = data == value
            edges = alone[:, [0, -1]].any((1, 2)) | alone[:, :, [0, -1]].any((1, 2))
            both = fill | alone
            if edges.mean() > 0.5 and _is_far(value, data, both):
                fill = both
                thin_fill = _thin_out(fill)
    return fill


def _thin_out(values: np.ndarray) -> np.ndarray:
    """Return evenly spaced ones of a large array's values."""
    step = max(1, values.size // MAX_PERCENTILE_VALUES)
    while math.gcd(step, values.shape[-1]) > 1:  # else the same columns again and again
        step += 1
    thin: np.ndarray = values.flat[::step]
    return thin


def _find_ends(data: np.ndarray, fill: np.ndarray) -> tuple[float, float]:
    if not fill.any():
        return float(data.min()), float(data.max())
    low, high = data.min(where=~fill, initial=np.inf), data.max(where=~fill, initial=-np.inf)
    return float(low), float(high)


def _is_air(data: np.ndarray, padding: np.ndarray, fill: np.ndarray, is_inverted: bool) -> bool:
    """Return True for padding that is dark without help and does not squeeze the levels."""
    low, high = compute_percentiles(data, fill)
    least, most = _find_ends(data, ~padding)
    distance = least - high if is_inverted else low - most
    return AIR[0] * (high - low) <= distance <= AIR[1] * (high - low)


def _is_far(value: float, data: np.ndarray, fill: np.ndarray) -> bool:
    low, high = compute_percentiles(data, fill)
    least, most = _find_ends(data, fill)
    gap = max(least - value, value - most)
    return 0 < (high - low) * (FAR if value else FAR_FROM_ZERO) < gap
