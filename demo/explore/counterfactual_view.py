"""Button that changes the analysed scan until each classifier's answer turns."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from core.weights import Systems
from demo.analysis.analysis import Analysis
from demo.analysis.counterfactual import search_changes
from demo.explore.cancellation import RequestGeneration
from demo.rendering.counterfactual import render_changes
from demo.rendering.html import render_sentence
from demo.serving.events import ON_CPU

log = logging.getLogger(__name__)
NO_ANALYSIS_MESSAGE = "Analyse a scan first."
FAILURE_MESSAGE = "The search failed: please try again."
INTRODUCTION = (
    "<h3>What would it take?</h3><p>Each classifier changes the scan, smoothly and visibly, until "
    "its own answer turns: the mixture, which was trained on attacks, and the plain classifier.</p>"
)
SECONDS = 0.3  # between pictures


class CounterfactualSection:
    """Button that searches for the changes, and their pictures."""

    def __init__(self, systems: Systems, analysis: gr.State, generation: gr.State) -> None:
        self.systems = systems
        with gr.Column(visible=False, elem_id="counterfactual") as self.box:
            gr.HTML(INTRODUCTION)
            with gr.Row(elem_classes="mf-controls"):
                ask = gr.Button("Show what it would take", size="sm", elem_id="imagine")
            self.view = gr.HTML("", elem_id="imagined")
        self.event = ask.click(
            self._search, [generation, analysis], self.view,
            show_progress="minimal", api_visibility="private", **ON_CPU,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """Widgets that `show` fills, in its order."""
        return [self.box, self.view]

    def _search(self, generation: RequestGeneration, analysis: Analysis | None) -> Iterator[Any]:
        system = self.systems.get(analysis.hospital) if analysis else None
        yield from search(system, generation, analysis)


def show(analysis: Analysis | None) -> tuple[Any, ...]:
    """Return box and view for a new analysis; hidden where the system cannot judge."""
    is_judged = analysis is not None and analysis.clean is not None and analysis.clean.can_judge
    return gr.update(visible=is_judged), ""


def search(
    system: MedFedPure | None, generation: RequestGeneration, analysis: Analysis | None
) -> Iterator[Any]:
    """Search for the changes of the clean scan; yield the pictures so far."""
    started, sent_at = generation.reading, 0.0
    if system is None or analysis is None:
        yield render_sentence(NO_ANALYSIS_MESSAGE)
        return
    try:
        for changes in search_changes(system, analysis.scan):
            if generation.reading != started:
                yield gr.skip()  # or the last pictures would be sent once more
                return
            if time.monotonic() - sent_at > SECONDS:
                yield render_changes(analysis.scan, changes, done=False)
                sent_at = time.monotonic()
        yield render_changes(analysis.scan, changes)
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a search for counterfactuals failed")
        yield render_sentence(FAILURE_MESSAGE)
