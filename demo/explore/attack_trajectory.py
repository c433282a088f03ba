"""Trajectory of the attack under the results, and the search for the smallest eps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.attacks import BisectionStep
from core.pipeline import MedFedPure
from core.weights import Systems
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings, find_smallest_eps
from demo.explore.cancellation import RequestGeneration
from demo.rendering import wording
from demo.rendering.html import render_sentence
from demo.rendering.images import MAX_CHANGE_LEVELS
from demo.rendering.trajectory import render_trajectory
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
NO_ANALYSIS_MESSAGE = "Analyse a scan first."
FAILURE_MESSAGE = "The search failed: please try again."


class AttackSteps:
    """Slider along the steps of the attack, and a button that searches for the smallest eps."""

    def __init__(self, systems: Systems, analysis: gr.State, generation: gr.State) -> None:
        self.systems = systems
        with gr.Column(visible=False, elem_id="attack-steps") as self.box:
            gr.HTML("<h3>The attack, step by step</h3>")
            self.slider = gr.Slider(0, 1, 0, step=1, label="Step", elem_id="attack-step")
            self.view = gr.HTML("", elem_id="attack-walk")
            with gr.Row(elem_classes="mf-controls"):
                find = gr.Button(
                    "Find the smallest ε that changes the answer", elem_id="smallest", size="sm"
                )
                self.found = gr.HTML("", elem_id="smallest-found")
        self.slider.input(
            _render_step, [analysis, self.slider], self.view,
            trigger_mode="always_last", queue=False, **PRIVATE,
        )  # fmt: skip
        self.search = find.click(
            self._search,
            [generation, analysis],
            self.found,
            show_progress="minimal",
            api_visibility="private",
            **ON_CPU,
        )

    def _search(self, generation: RequestGeneration, analysis: Analysis | None) -> Iterator[Any]:
        system = self.systems.get(analysis.hospital) if analysis else None
        if system and analysis:
            system = system.with_options(**analysis.options)
        yield from search(system, generation, analysis)

    @property
    def outputs(self) -> list[Any]:
        """Widgets that `show` fills, in its order."""
        return [self.box, self.slider, self.view, self.found]


def show(analysis: Analysis | None) -> tuple[Any, ...]:
    """Return box, slider, view and answer for an analysis; hidden without an attack."""
    if analysis is None or not analysis.steps:
        return gr.update(visible=False), gr.update(), "", ""
    last = len(analysis.steps) - 1
    slider = gr.update(maximum=last, value=last)
    return gr.update(visible=True), slider, _render_step(analysis, last), ""


def search(
    system: MedFedPure | None, generation: RequestGeneration, analysis: Analysis | None
) -> Iterator[Any]:
    """Search for the smallest successful eps; yield one sentence per attack."""
    started = generation.reading
    if system is None or analysis is None or not analysis.steps:
        yield render_sentence(NO_ANALYSIS_MESSAGE)
        return
    settings, tried = analysis.settings, 0
    try:
        for probe in find_smallest_eps(system, analysis.scan, settings):
            if generation.reading != started:
                yield gr.skip()  # or the last sentence would be sent once more
                return
            tried += 1
            yield render_sentence(describe_smallest(probe, tried, settings, done=False))
        yield render_sentence(describe_smallest(probe, tried, settings, done=True))
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a search for the smallest attack failed")
        yield render_sentence(FAILURE_MESSAGE)


def describe_smallest(
    probe: BisectionStep, tried: int, settings: AttackSettings, *, done: bool
) -> str:
    """Describe the search for the smallest eps in a sentence."""
    target, count = wording.AIMS[settings.aim], f"{tried} attack{'s' * (tried != 1)}"
    if probe.high is None:
        if not done:
            tried_eps = wording.format_eps(settings.norm, probe.eps)
            return f"{count}: no attack up to ε = {tried_eps} changed the answer."
        low = wording.format_eps(settings.norm, probe.low)
        return f"No ε up to {low} changed the answer of {target} in {count}: a stronger attack may."
    answer = wording.format_eps(settings.norm, probe.high)
    if probe.high == 0:
        return f"No attack is needed: {target} is wrong on the clean scan."
    if not done:
        return f"{count}: between {wording.format_eps(settings.norm, probe.low)} and {answer} …"
    return (
        f"The smallest ε found that changes the answer of {target}: {answer}, in {count} by "
        "bisection. An upper bound: a stronger attack may need less."
    )


def _render_step(analysis: Analysis | None, index: float) -> str:
    if analysis is None or not analysis.steps:
        return ""
    s = analysis.settings
    top = math.ceil(s.eps * 255) if s.norm == "linf" else MAX_CHANGE_LEVELS
    target = wording.AIMS[s.aim]
    return render_trajectory(
        analysis.scan, analysis.steps, int(index), s.num_steps, target, max(top, 1)
    )
