"""Selection of the scan to analyse: a dropped file, an example, a slice."""

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
EXPIRED_MESSAGE = "The scan was removed to free memory: choose it again."
BLANK_MESSAGE = "This slice is blank, so there is nothing to read: choose another."


class SelectionView(NamedTuple):
    """Chosen slice as the page's values."""

    scan: Tensor | None  # (1, 224, 224) to analyse; None if there is nothing to read
    view: dict[str, Any]  # for the viewer
    line: str  # HTML: a thumbnail and a sentence
    doubts: tuple[str, ...] = ()  # about the file, one sentence each, to be shown by the output


def receive(upload: Upload | None) -> Series | str:
    """Return a dropped file as a series, or the sentence that refuses it."""
    if upload is None:
        return START_HINT
    if upload.volume is None:
        return upload.refusal
    return Series(upload.volume, refusal=upload.refusal if upload.is_colour else "")


def view_selection(
    series: Series | None, words: str = "", *, insists: bool = False
) -> SelectionView:
    """Return the chosen slice for the page; a refused one is read only if the visitor insists.

    Args:
        series: the chosen series, or None.
        words: text instead of its description; without a series, the reason.
        insists: True if the visitor wants a refused picture to be read.
    """
    if series is None:
        return SelectionView(None, {}, render_line(None, words or START_HINT, refused=bool(words)))
    try:
        scan = series.get_scan()
    except ScanError:
        return SelectionView(
            None, viewer.build_view(series), render_line(None, _describe(series, BLANK_MESSAGE))
        )
    view = viewer.build_view(series, scan)
    if series.refusal and not insists:
        return SelectionView(None, view, render_line(scan, series.refusal, refused=True))
    said = COLOUR_WARNING if series.refusal else words or _describe(series, READY_MESSAGE)
    doubts = (COLOUR_WARNING,) if series.refusal else series.volume.doubts
    return SelectionView(scan, view, render_line(scan, said), doubts)


def render_line(scan: Tensor | None, words: str, *, refused: bool = False) -> str:
    """Render the chosen scan as a thumbnail with text; a refusal is an alert."""
    picture = ""
    if scan is not None:
        picture = f'<img src="{images.encode_scan(scan)}" alt="The chosen scan">'
    role = 'role="alert" class="mf-scan mf-bad"' if refused else 'role="status" class="mf-scan"'
    return f"<div {role}>{picture}<p>{escape(words)}</p></div>"


def _describe(series: Series, words: str) -> str:
    return " ".join([words, *series.describe()])
