"""A4 pages drawn with Matplotlib, measured in inches, with the notice on each.

Only Figure objects are used, never pyplot: no state is shared between visitors.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from demo.rendering.wording import RESEARCH

DPI = 135  # of a page as PNG
WIDTH, HEIGHT = 1116 / DPI, 1578 / DPI  # A4
# of the content, in inches from the page's upper left corner; below it is the footer
LEFT, RIGHT, TOP, BOTTOM = 0.6, 7.66, 1.3, 11.05
MIN_FACTOR = 0.8  # of the distance between lines: closer, and letters would touch
SIDE = 224 / DPI  # of a scan, in inches: one dot for each of its 224 pixels
TEXT_COLOR = "#1b232c"
MUTED_COLOR, BAR_COLOR, TRACK_COLOR, WARNING_COLOR, WARNING_FILL = (
    "#4a5663",
    "#2f7f9e",
    "#dde3e9",
    "#7a4b00",
    "#fdf0d5",
)


class Page:
    """One page; `x` and `top` are inches from its upper left corner."""

    def __init__(self, title: str, subtitle: str, number: int, count: int) -> None:
        self.start, self.factor = HEIGHT, 1.0
        self.figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()
        self.draw_text(LEFT, 0.55, title, size=15, weight="bold")
        self.draw_text(LEFT, 0.86, subtitle, size=8, color=MUTED_COLOR)
        for top in (0.55, 11.28):
            self.draw_text(
                RIGHT, top, RESEARCH, size=9, weight="bold", color=WARNING_COLOR, ha="right",
                bbox={"facecolor": WARNING_FILL, "edgecolor": "none", "pad": 4},
            )  # fmt: skip
        self.draw_text(
            LEFT, 11.28, f"MedFedPure, page {number} of {count}", size=8, color=MUTED_COLOR
        )

    def squeeze(self, start: float, bottom: float) -> None:
        """Draw lines and bars after `start` closer, so that those up to `bottom` fit the page."""
        self.start = start
        self.factor = min(max((BOTTOM - start) / (bottom - start), MIN_FACTOR), 1.0)

    def _place(self, top: float) -> float:
        return min(top, self.start) + max(top - self.start, 0.0) * self.factor

    def draw_text(self, x: float, top: float, text: str, size: float = 9, **style: Any) -> None:
        """Draw one line of text; dollar signs are not read as mathematics."""
        usual: dict[str, Any] = {"va": "center", "parse_math": False, "color": TEXT_COLOR}
        self.axes.text(x, self._place(top), text, fontsize=size, **(usual | style))

    def draw_paragraph(self, x: float, top: float, text: str, width: int = 102) -> float:
        """Draw text wrapped at `width` letters; return the top of what follows."""
        for line in textwrap.wrap(text, width):
            self.draw_text(x, top, line)
            top += 0.19
        return top

    def draw_rule(self, top: float) -> None:
        """Draw a thin line across the page."""
        self.axes.plot((LEFT, RIGHT), (top, top), color=TRACK_COLOR, linewidth=0.8)

    def draw_table(self, top: float, title: str, rows: Mapping[str, Any]) -> float:
        """Draw names and values under a title; return the top of what follows."""
        self.draw_text(LEFT, top, title, size=11, weight="bold")
        top += 0.22
        for name, value in rows.items():
            self.draw_text(LEFT, top, name, size=8)
            self.draw_text(LEFT + 1.7, top, str(value), size=7, family="DejaVu Sans Mono")
            top += 0.165
        self.draw_rule(top)
        return top + 0.22

    def draw_meter(self, x: float, top: float, width: float, share: float) -> None:
        """Draw a bar for a share from 0 to 1."""
        top = self._place(top)
        for length, colour in ((width, TRACK_COLOR), (width * min(max(share, 0), 1), BAR_COLOR)):
            self.axes.add_patch(Rectangle((x, top - 0.04), length, 0.08, color=colour, linewidth=0))

    def draw_image(self, x: float, top: float, pixels: np.ndarray, height: float = SIDE) -> None:
        """Draw uint8 pixels (H, W) or (H, W, 3), `SIDE` wide, aligned to the PNG's dots."""
        x, top = round(x * DPI) / DPI, round(top * DPI) / DPI
        box = (x / WIDTH, 1 - (top + height) / HEIGHT, SIDE / WIDTH, height / HEIGHT)
        axes = self.figure.add_axes(box)
        if pixels.ndim == 2:
            pixels = pixels[..., None].repeat(3, -1)
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set_axis_off()


def can_fit(start: float, bottom: float) -> bool:
    """Return True if lines after `start`, drawn closer, can be read and end on the page."""
    return start + (bottom - start) * MIN_FACTOR <= BOTTOM


def to_pdf(pages: Sequence[Page], title: str) -> bytes:
    """Return the pages as one PDF file."""
    buffer = io.BytesIO()
    with PdfPages(buffer, metadata={"Title": title, "Subject": RESEARCH}) as pdf:
        for page in pages:
            pdf.savefig(page.figure)
    return buffer.getvalue()


def to_png(page: Page) -> bytes:
    """Return one page as a PNG file."""
    buffer = io.BytesIO()
    page.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Title": RESEARCH})
    return buffer.getvalue()
