"""Small charts as inline SVG without a library, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, LEFT, RIGHT = 360, 12, 12  # of the chart and its margins, in SVG units


class Mark(NamedTuple):
    """Value that is marked on the axis of scores."""

    name: str
    value: float


def draw_histogram(
    values: np.ndarray, shares: np.ndarray, tau: float, marks: Sequence[Mark], words: str
) -> str:
    """Draw the histogram of clean scans' scores with the threshold and the given scans marked.

    Args:
        values: ascending scores (U,): each bar reaches from one to the next.
        shares: share of the scans below each (U,); a bar's area is its share.
        tau: the threshold; the bar that it falls into has both colours.
        marks: scores to mark, each with a line of its own.
        words: the chart in one sentence, for screen readers.
    """
    shown = [*values[[0, -1]].tolist(), tau, *(m.value for m in marks)]
    margin = 0.03 * max(max(shown) - min(shown), 1e-6)
    start, stop = min(shown) - margin, max(shown) + margin
    top, base = 12 + 15 * len(marks), 132

    def to_x(value: float) -> float:
        return LEFT + (value - start) / (stop - start) * (WIDTH - LEFT - RIGHT)

    density = np.diff(shares) / np.diff(values)
    heights = density / density.max(initial=0) * (base - top - 14)
    bars = ""
    for left, right, height in zip(values, values[1:], heights, strict=False):
        cut = min(max(tau, left), right)
        for kind, x1, x2 in (("mf-clean", left, cut), ("mf-alarm", cut, right)):
            if x2 > x1:
                bars += (
                    f'<rect class="{kind}" x="{to_x(x1) + 0.4:.1f}" y="{base - height:.1f}" '
                    f'width="{max(to_x(x2) - to_x(x1) - 0.8, 0.4):.1f}" height="{height:.1f}"/>'
                )
    points = "".join(
        _draw_pointer(to_x(mark.value), 11 + 15 * i, base, mark.name)
        for i, mark in enumerate(marks)
    )
    ticks = "".join(
        f'<text x="{to_x(v):.1f}" y="{base + 14}" text-anchor="middle">{v:g}</text>'
        for v in _choose_ticks(start, stop)
    )
    threshold = (
        f'<line class="mf-tau" x1="{to_x(tau):.1f}" x2="{to_x(tau):.1f}" y1="{top}" y2="{base}"/>'
        f'<text x="{to_x(tau) - 4:.1f}" y="{top + 10}" text-anchor="end">threshold τ</text>'
    )
    axis = f'<line class="mf-axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
    return _wrap_svg(base + 20, words, bars + axis + ticks + threshold + points)


def draw_curve(values: Sequence[float], current: int, low: float, high: float, words: str) -> str:
    """Draw one number along the steps of an attack on an axis from low to high; mark `current`."""
    top, base, count = 10, 92, max(len(values) - 1, 1)
    left = 34

    def at(index: int, value: float) -> tuple[float, float]:
        share = min(max((value - low) / max(high - low, 1e-9), 0), 1)
        return left + index / count * (WIDTH - left - RIGHT - 6), base - share * (base - top)

    points = [at(i, v) for i, v in enumerate(values)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle class="{"mf-now" if i == current else "mf-dot"}" cx="{x:.1f}" cy="{y:.1f}" '
        f'r="{6 if i == current else 3}"/>'
        for i, (x, y) in enumerate(points)
    )
    labels = "".join(
        f'<text x="{x:.1f}" y="{base + 17}" text-anchor="middle">{i}</text>'
        for i, (x, _) in enumerate(points)
        if len(points) <= 12 or i % 5 == 0
    )
    scale = (
        f'<text x="{left - 8}" y="{top + 4}" text-anchor="end">{high:g}</text>'
        f'<text x="{left - 8}" y="{base + 4}" text-anchor="end">{low:g}</text>'
        f'<line class="mf-axis" x1="{left}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
    )
    return _wrap_svg(
        base + 22, words, f'{scale}<polyline class="mf-curve" points="{path}"/>{dots}{labels}'
    )


def _draw_pointer(x: float, y: float, base: float, name: str) -> str:
    """Draw a labelled line down to the axis; the label is on the side with more room."""
    on_left = x > WIDTH * 0.6
    side = f'x="{x - 7:.1f}" text-anchor="end"' if on_left else f'x="{x + 7:.1f}"'
    return (
        f'<line class="mf-mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{base}"/>'
        f'<circle class="mf-now" cx="{x:.1f}" cy="{y - 4}" r="4"/>'
        f'<text class="mf-name" {side} y="{y}">{escape(name)}</text>'
    )


def _choose_ticks(low: float, high: float) -> list[float]:
    """Choose four to nine round numbers inside an axis."""
    steps = [10.0**k * m for k in range(-6, 7) for m in (1, 2, 5)]
    step = next(s for s in steps if (high - low) / s <= 9)
    return [
        float(v) * step for v in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)
    ]


def _wrap_svg(height: float, words: str, body: str) -> str:
    return (
        f'<svg class="mf-chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(words)}">{body}</svg>'
    )
