"""Choosing what is analysed: a dropped file, an example, a slice; data in, words and values out."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

from torch import Tensor

from core.scan import ScanError
from demo.explore import viewer
from demo.explore.series import Series
from demo.rendering import images
from demo.serving.uploads import Upload

START_HINT = "Drop a scan or take a synthetic example, then press Analyse."
READY_MESSAGE = "Scan loaded: press Analyse."
COLOUR_WARNING = "A colour picture, read as grey at your request: the outputs may mean nothing."
EXPIRED_MESSAGE = "The scan was put away to free memory: choose it again."
BLANK_MESSAGE = "This slice is blank, so there is nothing to read: choose another."


class SelectionView(NamedTuple):
    """A chosen slice as the page's values."""

    scan: Tensor | None  # (1, 224, 224) to analyse; None where there is nothing to read
    view: dict[str, Any]  # for the viewer
    line: str  # HTML: a thumbnail and a sentence


def receive(upload: Upload | None) -> Series | str:
    """A dropped file as a series, or the sentence that refuses it."""
    if upload is None:
        return START_HINT
    if upload.volume is None:
        return upload.refusal
    return Series(upload.volume, refusal=upload.refusal if upload.is_colour else "")


def selected_slice_view(
    series: Series | None, words: str = "", *, insists: bool = False
) -> SelectionView:
    """The chosen slice of a series; one that is refused is shown, and read if a visitor insists.

    Args:
        series: what was chosen; None where there is nothing.
        words: what to say of it instead of its facts; without a series, why there is none.
        insists: whether the visitor wants a refused picture read all the same.
    """
    if series is None:
        return SelectionView(None, {}, line(None, words or START_HINT, refused=bool(words)))
    try:
        scan = series.scan()
    except ScanError:
        return SelectionView(None, viewer.view(series), line(None, _facts(series, BLANK_MESSAGE)))
    view = viewer.view(series, scan)
    if series.refusal and not insists:
        return SelectionView(None, view, line(scan, series.refusal, refused=True))
    said = COLOUR_WARNING if series.refusal else words or _facts(series, READY_MESSAGE)
    return SelectionView(scan, view, line(scan, said))


def line(scan: Tensor | None, words: str, *, refused: bool = False) -> str:
    """The chosen scan as a thumbnail beside its words; a refusal is announced as an alert."""
    picture = ""
    if scan is not None:
        picture = f'<img src="{images.scan_url(scan)}" alt="The chosen scan">'
    role = 'role="alert" class="mf-scan mf-bad"' if refused else 'role="status" class="mf-scan"'
    return f"<div {role}>{picture}<p>{escape(words)}</p></div>"


def _facts(series: Series, words: str) -> str:
    return " ".join([words, *series.facts()])
