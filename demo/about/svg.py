"""Boxes, arrows and texts of inline SVG figures; colours are classes of figures.css."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

TITLE_BASELINE, FIRST_BASELINE, LINE_HEIGHT = 24, 46, 19  # in a box, from its top, in SVG units
GAP = 24  # between panels side by side


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    `title` and `description` are whole sentences: what a reader who cannot see the drawing gets.
    `key` is unique on the page; `content` is SVG inside `width` x `height`.
    """

    key: str
    title: str
    description: str
    width: int
    height: int
    content: str


@dataclass(frozen=True)
class Figure:
    """Panels with one caption; `source` names the paper's figure and what differs here."""

    name: str
    caption: str
    source: str
    panels: tuple[Panel, ...]


def render_figure(figure: Figure) -> str:
    """Render a figure as HTML: panels side by side, below one another where it is narrow."""
    drawings = "".join(
        draw_frame(p.key, p.title, p.description, p.width, p.height, p.content)
        for p in figure.panels
    )
    if len(figure.panels) == 1:
        kind = f'mf-wide" tabindex="0" role="region" aria-label="{escape(figure.panels[0].title)}'
    else:
        kind = "mf-panels"
    return (
        f'<figure class="mf-figure"><div class="{kind}">{drawings}</div>'
        f"<figcaption>{escape(figure.caption)} <small>{escape(figure.source)}</small></figcaption>"
        "</figure>"
    )


def draw_sheet(figure: Figure, style: str) -> str:
    """Draw a figure as one SVG with its panels side by side and a style sheet of its own."""
    content, x = f'<style>{style}</style><rect class="mf-ground" width="100%" height="100%"/>', 0
    for panel in figure.panels:
        content += f'<g transform="translate({x} 0)">{panel.content}</g>'
        x += panel.width + GAP
    title, description = (
        " ".join(getattr(p, part) for p in figure.panels) for part in ("title", "description")
    )
    height = max(panel.height for panel in figure.panels)
    drawing = draw_frame(figure.name, title, description, x - GAP, height, content)
    return drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def draw_frame(
    key: str, title: str, description: str, width: int, height: int, content: str
) -> str:
    """Draw the outermost element, named and described for screen readers."""
    names = f"mf-{key}-title mf-{key}-description"
    return (
        f'<svg class="mf-svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="{names}"><title id="mf-{key}-title">{escape(title)}</title>'
        f'<desc id="mf-{key}-description">{escape(description)}</desc>{content}</svg>'
    )


def draw_text(x: float, y: float, words: str, kind: str = "") -> str:
    """Draw a line of text, centred at x; kinds `mf-left` and `mf-heading` begin there."""
    named = f'class="{kind}" ' if kind else ""
    return f'<text {named}x="{x:g}" y="{y:g}">{escape(words)}</text>'


def draw_rectangle(x: float, y: float, width: float, height: float, kind: str = "") -> str:
    """Draw an empty box; kinds `mf-shared`, `mf-home`, `mf-wrong`, `mf-right` colour its edge."""
    return (
        f'<rect class="{f"mf-box {kind}".strip()}" x="{x:g}" y="{y:g}" width="{width:g}" '
        f'height="{height:g}" rx="{min(8, height / 4):g}"/>'
    )


def draw_box(
    x: float, y: float, width: float, height: float, title: str, *lines: str, kind: str = ""
) -> str:
    """Draw a box with a title and lines of text below it, centred."""
    middle = x + width / 2
    texts = "".join(
        draw_text(middle, y + FIRST_BASELINE + LINE_HEIGHT * i, line)
        for i, line in enumerate(lines)
    )
    return (
        f"{draw_rectangle(x, y, width, height, kind)}"
        f"{draw_text(middle, y + TITLE_BASELINE, title, 'mf-title')}{texts}"
    )


def draw_arrow(*points: tuple[float, float], kind: str = "") -> str:
    """Draw a line through the points with a tip at the last."""
    (x1, y1), (x2, y2) = points[-2:]
    angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
    way = " ".join(f"{x:g},{y:g}" for x, y in points)
    return (
        f'<polyline class="{f"mf-flow {kind}".strip()}" points="{way}"/>'
        f'<path class="{f"mf-tip {kind}".strip()}" d="M0 0 L-10 -5 L-10 5 z" '
        f'transform="translate({x2:g} {y2:g}) rotate({angle:.4g})"/>'
    )


def draw_key(x: float, y: float, kind: str, words: str) -> str:
    """Draw an entry of the legend: a small box of the kind and its meaning."""
    return draw_rectangle(x, y, 22, 16, kind) + draw_text(x + 30, y + 13, words, "mf-left")


def draw_scan(x: float, y: float, side: float, *, tumour: bool = True) -> str:
    """Draw a small head on black, as an axial slice shows it, with or without a tumour."""
    mass = '<circle class="mf-mass" cx="66" cy="36" r="8"/>' if tumour else ""
    return (
        f'<g transform="translate({x:g} {y:g}) scale({side / 100:g})">'
        '<rect class="mf-film" width="100" height="100" rx="6"/>'
        '<ellipse class="mf-skull" cx="50" cy="50" rx="36" ry="43"/>'
        '<ellipse class="mf-brain" cx="50" cy="50" rx="30" ry="37"/>'
        '<path class="mf-fluid" d="M50 14 V34 M50 68 V86 M47 38 Q38 46 42 60 M53 38 Q62 46 58 60"/>'
        f"{mass}</g>"
    )
