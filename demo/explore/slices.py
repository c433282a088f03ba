"""Slice slider: the shown slice, and the readings of all slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import torch
from torch import Tensor

from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import ScanError
from demo.analysis.volume import MAX_PASSED_OVER, SliceReading, VolumeAnswer, answer_volume
from demo.explore.series import Series
from demo.rendering import wording

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
    count = len(series.volume)
    series.readings.clear()
    series.answer = ""
    series.tau = system.tau
    for start in range(0, count, BATCH_SIZE):
        series.summary = _describe_readings(series, system)
        yield
        scans: dict[int, Tensor] = {}
        for index in range(start, min(start + BATCH_SIZE, count)):
            try:
                scans[index] = series.get_scan(index)
            except ScanError:
                series.readings[index] = None  # blank, as the outermost slices of a head often are
        if scans:
            found = system.read_batch(torch.stack(tuple(scans.values())), [SEED] * len(scans))
            series.readings |= dict(zip(scans, map(SliceReading.of, found), strict=True))
    series.summary = _describe_readings(series, system)
    series.answer = describe_answer(series)
    yield


def describe_answer(series: Series) -> str:
    """Describe the answer for a volume, the slices that it rests on, and the rule."""
    readings = dict(series.readings)
    found = [r for r in readings.values() if r is not None]
    judged = [r for r in found if r.can_judge]
    answer = answer_volume(readings)
    if answer is None:
        return "No slice can be judged, so that there is no answer for the volume."
    says = wording.name_class(answer.tumour_probability)
    confidence = wording.format_confidence(answer.tumour_probability)
    slices = f"slice{'s' * (len(answer.slices) > 1)} "
    slices += wording.list_words([str(n + 1) for n in answer.slices])
    alone = ""
    if len(judged) > 1:
        count = sum(r.log_odds >= 0 for r in judged)
        alone = f"; {count} of {len(judged)} slices say tumour by themselves"
    refused = len(found) - len(judged)
    most = f" Most slices, {refused} of {len(found)}, cannot be judged."
    return (
        f"Answer for the volume, with defence: {says} {confidence} (by {slices}){alone}."
        f"{most if refused > len(judged) else ''} The rule: {_describe_rule(answer, len(judged))}; "
        "not measured on whole volumes."
    )


def _describe_rule(answer: VolumeAnswer, judged: int) -> str:
    """Describe the rule of an answer, over as many slices as it rests on."""
    if judged == 1:
        return "the answer of the slice that is judged"
    width = len(answer.slices)
    if width == 1:
        return "the highest log-odds of one slice, as no two that can be judged are neighbours"
    rule = (
        f"the highest mean of the log-odds over {width} slices in a row, where up to "
        f"{MAX_PASSED_OVER} that are blank or cannot be judged are passed over"
    )
    return rule + (f" ({answer.apart} judged too far from others)" if answer.apart else "")


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
