"""Plots as SVG, written by hand: the same numbers give the same bytes under any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

WIDTH = 360  # of every plot, so that it is readable on a phone
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 40  # margins of a plot with axes
SERIES = 4  # colours that the page's style sheet knows, as classes s0 to s3
LINE = 16  # height of a line of text


class Canvas:
    """Shapes in pixels from the top left corner."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, points: Sequence[Point], style: str) -> None:
        path = " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
        self._parts.append(f'<polyline class="{style}" points="{path}"/>')

    def box(self, corner: Point, size: Point, style: str) -> None:
        (x, y), (w, h) = corner, size
        where = f'x="{_px(x)}" y="{_px(y)}" width="{_px(w)}" height="{_px(h)}"'
        self._parts.append(f'<rect class="{style}" {where}/>')

    def mark(self, at: Point, series: int) -> None:
        """A dot, square, triangle or diamond, so that colour is not the only difference."""
        x, y = at
        shapes: tuple[Sequence[Point], ...] = (
            ((-3, -3), (3, -3), (3, 3), (-3, 3)),
            ((0, -4), (4, 3), (-4, 3)),
            ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)),
        )
        style = f'class="mark s{series % SERIES}"'
        if series % SERIES == 0:
            self._parts.append(f'<circle {style} cx="{_px(x)}" cy="{_px(y)}" r="3.5"/>')
        else:
            corners = " ".join(
                f"{_px(x + dx)},{_px(y + dy)}" for dx, dy in shapes[series % SERIES - 1]
            )
            self._parts.append(f'<polygon {style} points="{corners}"/>')

    def text(self, at: Point, text: str, anchor: str = "start", style: str = "") -> None:
        place = f'x="{_px(at[0])}" y="{_px(at[1])}" text-anchor="{anchor}"'
        self._parts.append(f'<text class="{style}" {place}>{escape(text)}</text>')

    def upright(self, at: Point, text: str) -> None:
        """Text that reads upwards, centred."""
        x, y = (_px(v) for v in at)
        turn = f'transform="rotate(-90 {x} {y})"'
        self._parts.append(
            f'<text x="{x}" y="{y}" text-anchor="middle" {turn}>{escape(text)}</text>'
        )

    def svg(self, alt: str) -> str:
        """The picture; `alt` says in words what it shows."""
        size = f"0 0 {_px(self.width)} {_px(self.height)}"
        body = "\n".join(self._parts)
        label = escape(alt, quote=True)
        return f'<svg viewBox="{size}" role="img" aria-label="{label}">\n{body}\n</svg>'


class Plot:
    """A frame with axes on a canvas: places data between `x` and `y`, each (lowest, highest)."""

    def __init__(self, x: Point, y: Point, height: float = 230, legend: int = 0) -> None:
        self.x, self.y = x, y
        self.canvas = Canvas(height + LINE * legend)
        self.foot = height - BOTTOM
        self._entries = 0

    def at(self, x: float, y: float) -> Point:
        """Pixels of a point of the data."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), self.foot - up * (self.foot - TOP)

    def axes(
        self,
        x_ticks: Sequence[float] | Mapping[float, str],
        y_ticks: Sequence[float],
        x_name: str,
        y_name: str,
    ) -> None:
        """Grid, ticks as `tick_text` or `x_ticks` names them, and what the axes are."""
        for y in y_ticks:
            self.line([(self.x[0], y), (self.x[1], y)], "grid-line")
            px, py = self.at(self.x[0], y)
            self.canvas.text((px - 5, py + 4), tick_text(y), "end")
        for x in x_ticks:
            self.line([(x, self.y[0]), (x, self.y[1])], "grid-line")
            px, py = self.at(x, self.y[0])
            name = x_ticks[x] if isinstance(x_ticks, Mapping) else tick_text(x)
            self.canvas.text((px, py + 14), name, "middle")
        low, high = self.x
        self.line([(low, self.y[1]), (low, self.y[0]), (high, self.y[0])], "axis")
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        self.canvas.text((middle, self.foot + 31), x_name, "middle")
        self.canvas.upright((12, TOP + (self.foot - TOP) / 2), y_name)

    def line(self, points: Sequence[Point], style: str) -> None:
        self.canvas.line([self.at(*p) for p in points], style)

    def bar(self, x: Point, height: float, style: str) -> None:
        """From the bottom to `height`, between two places."""
        (left, top), (right, bottom) = self.at(x[0], height), self.at(x[1], self.y[0])
        self.canvas.box((left, top), (right - left, bottom - top), style)

    def whisker(self, x: float, interval: Sequence[float], style: str) -> None:
        (px, low), (_, high) = self.at(x, interval[0]), self.at(x, interval[1])
        self.canvas.line([(px, low), (px, high)], style)
        for end in (low, high):
            self.canvas.line([(px - 3, end), (px + 3, end)], style)

    def mark(self, x: float, y: float, series: int) -> None:
        self.canvas.mark(self.at(x, y), series)

    def key(self, text: str, style: str, series: int | None = None) -> None:
        """The next line of the legend, below the axes."""
        y = self.foot + BOTTOM + LINE * self._entries + 4
        self._entries += 1
        self.canvas.line([(LEFT, y), (LEFT + 24, y)], style)
        if series is not None:
            self.canvas.mark((LEFT + 12, y), series)
        self.canvas.text((LEFT + 30, y + 4), text)


def ticks(highest: int, most: int = 5) -> list[int]:
    """Round numbers from 0 to `highest` or the next above it, at most `most` steps."""
    steps = (m * 10**power for power in range(12) for m in (1, 2, 5))
    step = next(s for s in steps if highest <= s * most)
    return [step * i for i in range(max(-(-highest // step), 1) + 1)]


def tick_text(value: float) -> str:
    """Short, without a leading zero or needless digits."""
    text = f"{value:.4g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
