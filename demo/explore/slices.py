"""Slice slider: the shown slice, and the readings of all slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from core.pipeline import MedFedPure
from demo.analysis import volume
from demo.explore.series import Series
from demo.rendering import wording
from demo.rendering.volume_answer import describe_answer

HERE = Path(__file__).parent
MARK_NOTE = "Marked by the detector: unlike clean training scans, which says nothing of disease."
SEED = 0  # of the purifier's noise, as in the first reading of a slice


def build_slider() -> gr.HTML:
    """Build the slider, empty; slices.js draws it and requests slices."""
    return gr.HTML(
        {},
        html_template=(HERE / "slices.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "slices.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="slices",
    )


def read_slices(system: MedFedPure, series: Series) -> Iterator[None]:
    """Read the slices in batches into `series.readings`; yield before each batch and at the end."""
    series.readings.clear()
    series.answer = ""
    series.tau = system.tau
    series.summary = _describe_readings(series, system)
    yield
    for found in volume.read_slices(system, series.volume, SEED):
        series.readings |= found
        series.summary = _describe_readings(series, system)
        if len(series.readings) == len(series.volume):
            series.answer = describe_answer(dict(series.readings))
        yield


def _describe_readings(series: Series, system: MedFedPure) -> str:
    count, done = len(series.volume), len(series.readings)
    found = [r for r in series.readings.values() if r is not None]
    marked, unjudged = sum(r.flagged for r in found), sum(not r.can_judge for r in found)
    how_many = f"{marked} marked" if marked else "none marked"
    if unjudged:
        how_many += f", {unjudged} cannot be judged ({wording.UNFAMILIAR_PICTURE})"
    how_many += wording.describe_hospital(system.info.get("hospital"))
    line = f"{done} of {count} slices read, {how_many}."
    return f"{line} {MARK_NOTE}" if done == count else line
