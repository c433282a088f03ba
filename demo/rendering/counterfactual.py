"""Changed scans that turn each classifier's answer, side by side, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from demo.analysis.counterfactual import SEARCH, Change
from demo.rendering import images, wording
from demo.rendering.html import render_figure, render_picture, render_sentence, render_strip

MAX_LEVELS = 48  # grey levels of 255 from which on the change is brightest
LABEL = "The changed scans are made by the models: they are not what a scanner saw."


def render_changes(scan: Tensor, changes: Sequence[Change], *, done: bool = True) -> str:
    """Render a scan (1, H, W), and for each classifier the changed scan and the change alone.

    Unless the search is `done`, the last classifier's answer may still turn.
    """
    shown = render_picture(scan, "the scan", "as received")
    for change in changes:
        name = change.classifier
        says = wording.name_class(change.after)
        shown += render_picture(change.scan, f"{name}: {says}", "changed by the model")
        shown += render_figure(
            images.encode_change(scan, change.scan, MAX_LEVELS),
            f"{name}: change",
            f"brightest from {MAX_LEVELS} levels on",
        )
    ended = changes if done else changes[:-1]
    said = "".join(render_sentence(describe_change(scan, change)) for change in ended)
    if not done:
        said += render_sentence(f"{changes[-1].classifier.capitalize()}: not done yet.")
    return f"{render_strip(shown)}{said}{render_sentence(LABEL)}"


def describe_change(scan: Tensor, change: Change) -> str:
    """Describe what it took to turn an answer, in a sentence."""
    before, levels = wording.name_class(change.before), count_levels(scan, change.scan)
    name = change.classifier.capitalize()
    if change.has_turned:
        return (
            f"{name}: “{before}” becomes “{wording.name_class(change.after)}” "
            f"({wording.format_confidence(change.after)}) if pixels change by at most {levels} of "
            "255 levels."
        )
    return (
        f"{name}: no smooth change of at most {SEARCH.eps * 255:.0f} of 255 levels was found that "
        f"turns “{before}”."
    )


def count_levels(scan: Tensor, changed: Tensor) -> int:
    """Count the grey levels of 255 by which the most changed pixel differs."""
    return round(float((changed - scan).abs().max()) * 255)
