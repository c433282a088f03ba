"""Under the results: the attack step by step, and the smallest one that would do."""

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
from demo.analysis.attack import AttackSettings, smallest
from demo.explore.cancellation import Turn
from demo.rendering import wording
from demo.rendering.html import say
from demo.rendering.images import CHANGE_TOP
from demo.rendering.trajectory import walk
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
FIRST = "Analyse a scan first."
FAILED = "The search failed: please try again."


class AttackSteps:
    """A slider along the attack of the analysis that `analysis` holds, and a search on request."""

    def __init__(self, systems: Systems, analysis: gr.State, turn: gr.State) -> None:
        self.systems = systems
        with gr.Column(visible=False, elem_id="attack-steps") as self.box:
            gr.HTML("<h3>The attack, step by step</h3>")
            self.slider = gr.Slider(0, 1, 0, step=1, label="Step", elem_id="attack-step")
            self.view = gr.HTML("", elem_id="attack-walk")
            with gr.Row(elem_classes="mf-controls"):
                find = gr.Button(
                    "Find the smallest ε that turns this scan", elem_id="smallest", size="sm"
                )
                self.found = gr.HTML("", elem_id="smallest-found")
        self.slider.input(
            _at, [analysis, self.slider], self.view,
            trigger_mode="always_last", queue=False, **PRIVATE,
        )  # fmt: skip
        self.search = find.click(
            self._search,
            [turn, analysis],
            self.found,
            show_progress="minimal",
            api_visibility="private",
            **ON_CPU,
        )

    def _search(self, turn: Turn, analysis: Analysis | None) -> Iterator[Any]:
        system = self.systems.get(analysis.hospital) if analysis else None
        yield from search(system, turn, analysis)

    @property
    def outputs(self) -> list[Any]:
        """The widgets that `show` fills, in its order."""
        return [self.box, self.slider, self.view, self.found]


def show(analysis: Analysis | None) -> tuple[Any, ...]:
    """Box, slider, view and answer for an analysis; hidden where there is no attack to show."""
    if analysis is None or not analysis.steps:
        return gr.update(visible=False), gr.update(), "", ""
    last = len(analysis.steps) - 1
    slider = gr.update(maximum=last, value=last)
    return gr.update(visible=True), slider, _at(analysis, last), ""


def search(system: MedFedPure | None, turn: Turn, analysis: Analysis | None) -> Iterator[Any]:
    """Looks for the smallest attack, one sentence after each that was tried."""
    mine = turn.reading
    if system is None or analysis is None or not analysis.steps:
        yield say(FIRST)
        return
    settings, tried = analysis.settings, 0
    try:
        for probe in smallest(system, analysis.scan, settings):
            if turn.reading != mine:
                yield gr.skip()  # or the last sentence would be sent once more
                return
            tried += 1
            yield say(found(probe, tried, settings, done=False))
        yield say(found(probe, tried, settings, done=True))
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a search for the smallest attack failed")
        yield say(FAILED)


def found(probe: BisectionStep, tried: int, settings: AttackSettings, *, done: bool) -> str:
    """The state of the search for the smallest eps, as a sentence."""
    who, count = wording.AIMS[settings.aim], f"{tried} attack{'s' * (tried != 1)}"
    if probe.high is None:
        if not done:
            return f"{count}: nothing up to ε = {wording.eps(settings.norm, probe.eps)} turned it."
        return (
            f"No ε up to {wording.eps(settings.norm, probe.low)} turned {who} in {count}: "
            "a cleverer attack may."
        )
    answer = wording.eps(settings.norm, probe.high)
    if probe.high == 0:
        return f"There is nothing to turn: {who} is wrong on the clean scan."
    if not done:
        return f"{count}: between {wording.eps(settings.norm, probe.low)} and {answer} …"
    return (
        f"The smallest ε found that turns {who}: {answer}, in {count} by halving. "
        "An upper bound: a cleverer attack may need less."
    )


def _at(analysis: Analysis | None, index: float) -> str:
    if analysis is None or not analysis.steps:
        return ""
    s = analysis.settings
    top = math.ceil(s.eps * 255) if s.norm == "linf" else CHANGE_TOP
    victim = wording.AIMS[s.aim]
    return walk(analysis.scan, analysis.steps, int(index), s.num_steps, victim, max(top, 1))
