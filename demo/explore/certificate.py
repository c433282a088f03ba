"""Certificate of a scan: the perturbation size up to which the answer is proven."""

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
from demo.rendering.html import render_sentence
from demo.serving.events import ON_CPU

log = logging.getLogger(__name__)
NOISE_COPIES, ERROR_PROBABILITY = 1000, 0.001
NO_ANALYSIS_MESSAGE = "Analyse a scan first."
SAMPLING_MESSAGE = f"Reading {NOISE_COPIES:,} noised copies …"
FAILURE_MESSAGE = "The certificate failed: please try again."
SMOOTHED_NOTE = (
    "This is the answer of a separate smoothed classifier, which sees the scan averaged to "
    "{side} x {side} pixels, with noise added. The defence's own answer is not certified."
)


class CertificateSection:
    """Button that certifies the analysed scan, and the answer."""

    def __init__(
        self, classifier: Smoothed | None, problem: str, analysis: gr.State, generation: gr.State
    ) -> None:
        self.classifier, self.problem = classifier, problem
        with gr.Column(visible=False, elem_id="certificate") as self.box:
            gr.HTML(
                "<h3>Certificate: try to prove that no small change flips a separate "
                "classifier's answer</h3>"
            )
            with gr.Row(elem_classes="mf-controls"):
                ask = gr.Button(
                    "Try to certify this scan",
                    size="sm",
                    elem_id="certify",
                    interactive=bool(classifier),
                )
                self.answer = gr.HTML(render_sentence(problem), elem_id="certified")
        self.event = ask.click(
            self._certify, [generation, analysis], self.answer,
            show_progress="minimal", api_visibility="private", **ON_CPU,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """Widgets that `show` fills, in its order."""
        return [self.box, self.answer]

    def show(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """Return box and answer for a new analysis: nothing is certified yet."""
        return show(self.classifier, self.problem, analysis)

    def _certify(self, generation: RequestGeneration, analysis: Analysis | None) -> Iterator[Any]:
        yield from certify(self.classifier, generation, analysis.scan if analysis else None)


def show(classifier: Smoothed | None, problem: str, analysis: Analysis | None) -> tuple[Any, ...]:
    """Return box and answer; hidden without an analysis, or without classifier and problem."""
    is_visible = analysis is not None and bool(classifier or problem)
    return gr.update(visible=is_visible), render_sentence(problem)


def certify(
    classifier: Smoothed | None, generation: RequestGeneration, scan: Tensor | None
) -> Iterator[Any]:
    """Certify a scan (1, 224, 224); yield a sentence before, then the answer."""
    started = generation.reading
    if classifier is None or scan is None:
        yield render_sentence(NO_ANALYSIS_MESSAGE)
        return
    yield render_sentence(SAMPLING_MESSAGE)
    try:
        answer = describe_certificate(
            classifier.certify(scan, n=NOISE_COPIES, alpha=ERROR_PROBABILITY),
            classifier.config.side,
        )
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a certificate failed")
        answer = FAILURE_MESSAGE
    yield render_sentence(answer) if generation.reading == started else gr.skip()


def describe_certificate(certificate: Certificate, side: int) -> str:
    """Describe the certificate in sentences."""
    note = SMOOTHED_NOTE.format(side=side)
    if certificate.label is None:
        return (
            "Not certified: the smoothed classifier's answer changes with the noise, "
            f"so that it gives none. {note}"
        )
    least = math.floor(certificate.eps * 1e4)  # a proof is not rounded up
    return (
        f"Certified at ε = {least / 1e4:.4f} (L∞): the smoothed classifier says "
        f"“{wording.CLASSES[certificate.label]}”, and no change of at most that size in each pixel "
        "can change it. Such a certificate is wrong with a probability of at most "
        f"{ERROR_PROBABILITY:.1%}. {note}"
    )
