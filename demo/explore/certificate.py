"""Certificate of the scan, on request: the perturbation size up to which the answer is proven."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import gradio as gr
from torch import Tensor

from core.smoothing import Certificate, Smoothed
from demo.analysis.analysis import Analysis
from demo.explore.cancellation import RequestGeneration
from demo.rendering import wording
from demo.rendering.html import say
from demo.serving.events import ON_CPU

log = logging.getLogger(__name__)
NOISE_COPIES, ERROR_PROBABILITY = 1000, 0.001
NO_ANALYSIS_MESSAGE = "Analyse a scan first."
SAMPLING_MESSAGE = f"Reading {NOISE_COPIES:,} noised copies …"
FAILURE_MESSAGE = "The certificate failed: please try again."
CERTIFIED_MODEL_NOTE = (
    "This is the answer of a separate certified model, which sees the scan averaged to "
    "{side} x {side} pixels, with noise added. The defence's own answer is not certified."
)


class Certify:
    """A button that certifies the scan of the analysis, and the answer."""

    def __init__(
        self, reader: Smoothed | None, problem: str, analysis: gr.State, generation: gr.State
    ) -> None:
        self.reader, self.problem = reader, problem
        with gr.Column(visible=False, elem_id="certificate") as self.box:
            gr.HTML("<h3>A certificate</h3>")
            with gr.Row(elem_classes="mf-controls"):
                ask = gr.Button(
                    "Certify this scan", size="sm", elem_id="certify", interactive=bool(reader)
                )
                self.answer = gr.HTML(say(problem), elem_id="certified")
        self.event = ask.click(
            self._certify, [generation, analysis], self.answer,
            show_progress="minimal", api_visibility="private", **ON_CPU,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """The widgets that `show` fills, in its order."""
        return [self.box, self.answer]

    def show(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """Box and answer for an analysis: nothing is certified yet."""
        return show(self.reader, self.problem, analysis)

    def _certify(self, generation: RequestGeneration, analysis: Analysis | None) -> Iterator[Any]:
        yield from certify(self.reader, generation, analysis.scan if analysis else None)


def show(reader: Smoothed | None, problem: str, analysis: Analysis | None) -> tuple[Any, ...]:
    """Box and answer; hidden without an analysis, or with neither a model nor a problem."""
    return gr.update(visible=analysis is not None and bool(reader or problem)), say(problem)


def certify(
    reader: Smoothed | None, generation: RequestGeneration, scan: Tensor | None
) -> Iterator[Any]:
    """Certifies one scan (1, 224, 224): a sentence before, and the answer."""
    started = generation.reading
    if reader is None or scan is None:
        yield say(NO_ANALYSIS_MESSAGE)
        return
    yield say(SAMPLING_MESSAGE)
    try:
        answer = describe_certificate(
            reader.certify(scan, n=NOISE_COPIES, alpha=ERROR_PROBABILITY), reader.config.side
        )
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a certificate failed")
        answer = FAILURE_MESSAGE
    yield say(answer) if generation.reading == started else gr.skip()


def describe_certificate(found: Certificate, side: int) -> str:
    """The certificate of the smoothed model, as sentences."""
    whose = CERTIFIED_MODEL_NOTE.format(side=side)
    if found.label is None:
        return (
            "Not certified: the smoothed model's answer changes with the noise, so that it gives "
            f"none. {whose}"
        )
    least = math.floor(found.eps * 1e4)  # a proof is not rounded up
    return (
        f"Certified at ε = {least / 1e4:.4f} (L∞): the smoothed model says "
        f"“{wording.CLASSES[found.label]}”, and no change of at most that size in each pixel can "
        "change it. Such a certificate is wrong with a probability of at most "
        f"{ERROR_PROBABILITY:.1%}. {whose}"
    )
