"""Slice slider: the shown slice, and the slices that the detector marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import torch
from torch import Tensor

from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import ScanError
from demo.explore.series import Series
from demo.rendering import wording

HERE = Path(__file__).parent
MARK_NOTE = "Marked: unlike the clean training scans, which says nothing of disease."


def build_slider() -> gr.HTML:
    """Build the slider, empty; slices.js draws it and requests slices."""
    return gr.HTML(
        {},
        html_template=(HERE / "slices.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "slices.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="slices",
    )


@torch.no_grad()
def score_slices(system: MedFedPure, series: Series) -> Iterator[None]:
    """Score the slices in batches into `series.scores`; yield before each batch and at the end."""
    count = len(series.volume)
    series.scores.clear()
    series.unjudged.clear()
    series.tau = system.tau
    for start in range(0, count, BATCH_SIZE):
        series.summary = _describe_scores(series, system)
        yield
        scans: dict[int, Tensor] = {}
        for index in range(start, min(start + BATCH_SIZE, count)):
            try:
                scans[index] = series.get_scan(index)
            except ScanError:
                series.scores[index] = None  # blank, as the outermost slices of a head often are
        if scans:
            x = torch.stack(tuple(scans.values())).to(system.device)
            series.scores |= dict(zip(scans, system.score(system.detect(x)).tolist(), strict=True))
            is_far = (system.measure_novelty(x) > system.novelty.limit).tolist()
            series.unjudged |= {index for index, far in zip(scans, is_far, strict=True) if far}
    series.summary = _describe_scores(series, system)
    yield


def _describe_scores(series: Series, system: MedFedPure) -> str:
    count, done = len(series.volume), len(series.scores)
    marked = sum(1 for found in series.scores.values() if found is not None and found > series.tau)
    how_many = f"{marked} marked" if marked else "none marked"
    if series.unjudged:
        how_many += f", {len(series.unjudged)} cannot be judged ({wording.UNFAMILIAR_PICTURE})"
    how_many += wording.describe_hospital(system.info.get("hospital"))
    return (
        f"{done} of {count} slices read, {how_many}. {MARK_NOTE if done == count else ''}".rstrip()
    )
