"""The row of pictures, left to right in the pipeline's order, as HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from demo import figures, wording
from demo.analysis import Analysis

ERROR_BAR = figures.gradient_css(figures.cividis(np.linspace(0, 1, 17)))
CHANGE_BAR = figures.gradient_css(figures.diverging(np.linspace(-1, 1, 17)))
CHANGE_TICKS = (f"-{figures.CHANGE_TOP}", "0", f"+{figures.CHANGE_TOP} levels")
ERROR_TICKS = ("0", "", f"≥ {figures.ERROR_TOP * 255:.0f} levels")
TOGGLE = (
    '<fieldset class="mf-toggle"><legend>Error map and purified scan of the</legend>'
    '<label><input type="radio" name="mf-of" value="attacked" checked> attacked scan</label>'
    '<label><input type="radio" name="mf-of" value="clean"> clean scan</label></fieldset>'
)


def panels(a: Analysis) -> str:
    """All pictures that there are; the error map and the purified scan of either reading."""
    attacked, latest = a.attacked_scan, a.readings[::-1]
    waiting = "no attack" if a.settings.kind == "none" else "waiting"
    figure = [_panel("Original", [_image(figures.scan_url(a.scan), "The clean scan")], "as read")]
    shown = [] if attacked is None else [_image(figures.scan_url(attacked), "The attacked scan")]
    figure.append(_panel("Attacked", shown, "the file both systems are given", waiting))
    if attacked is not None:
        url = figures.change_url(a.scan, attacked)
        shown = [_image(url, "Attacked minus original", "mf-exact")]
    caption = "attacked - original, magnified"
    bar = _bar(CHANGE_BAR, CHANGE_TICKS)
    figure.append(_panel("Attack alone", shown, caption, waiting, bar))
    shown = [
        _image(figures.error_url(d.error_map), f"Error map of the {n} scan", n) for n, d in latest
    ]
    bar = _bar(ERROR_BAR, ERROR_TICKS)
    figure.append(_panel("MAE reconstruction error", shown, wording.ERROR_CAPTION, "waiting", bar))
    shown = [_image(figures.scan_url(d.purified), f"The {n} scan, purified", n) for n, d in latest]
    depth = "; ".join(f"{n}: t* = {d.t_star}" for n, d in latest) or "noise added, then removed"
    figure.append(_panel("Purified", shown, depth))
    toggle = TOGGLE if len(latest) == 2 else ""
    return (
        f'<section class="mf-view" aria-label="Pictures">{toggle}'
        f'<div class="mf-panels">{"".join(figure)}</div></section>'
    )


def _image(url: str, alternative: str, kind: str = "") -> str:
    return f'<img class="{kind}" src="{url}" alt="{escape(alternative)}">'


def _panel(
    title: str, images: list[str], caption: str, waiting: str = "waiting", bar: str = ""
) -> str:
    body = "".join(images) or f'<div class="mf-blank">{escape(waiting)}</div>'
    return (
        f'<figure class="mf-panel" data-panel="{escape(title)}"><h3>{escape(title)}</h3>'
        f"{body}{bar}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _bar(gradient: str, ticks: tuple[str, str, str]) -> str:
    """A labelled colour bar."""
    labels = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    return (
        f'<div class="mf-bar" style="background:{gradient}"></div>'
        f'<div class="mf-ticks">{labels}</div>'
    )
