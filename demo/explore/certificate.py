"""Under the results, on request: up to which perturbation a reading of the scan is proven."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import gradio as gr
from torch import Tensor

from core.smoothing import Certificate, Smoothed
from demo.analysis.analysis import Analysis
from demo.explore.cancellation import Turn
from demo.rendering import wording
from demo.rendering.html import say
from demo.serving.events import ON_CPU

log = logging.getLogger(__name__)
NOISES, ALPHA = 1000, 0.001
FIRST = "Analyse a scan first."
DRAWING = f"Reading {NOISES:,} noised copies …"
FAILED = "The certificate failed: please try again."
WHOSE = (
    "This is the answer of a small reader of its own, which sees the scan averaged to "
    "{side} x {side} pixels through noise. It is not the defence's, whose reading is not certified."
)


class Certify:
    """A button that certifies the scan of the analysis; hidden where the weights cannot."""

    def __init__(
        self, reader: Smoothed | None, problem: str, analysis: gr.State, turn: gr.State
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
            self._certify, [turn, analysis], self.answer,
            show_progress="minimal", api_visibility="private", **ON_CPU,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """The widgets that `show` fills, in its order."""
        return [self.box, self.answer]

    def show(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """Box and answer for an analysis: nothing is certified yet."""
        return show(self.reader, self.problem, analysis)

    def _certify(self, turn: Turn, analysis: Analysis | None) -> Iterator[Any]:
        yield from certify(self.reader, turn, analysis.scan if analysis else None)


def show(reader: Smoothed | None, problem: str, analysis: Analysis | None) -> tuple[Any, ...]:
    """Box and answer: hidden without an analysis, and where there neither is nor should be one."""
    return gr.update(visible=analysis is not None and bool(reader or problem)), say(problem)


def certify(reader: Smoothed | None, turn: Turn, scan: Tensor | None) -> Iterator[Any]:
    """Certifies one scan (1, 224, 224): a sentence before, and the answer."""
    mine = turn.reading
    if reader is None or scan is None:
        yield say(FIRST)
        return
    yield say(DRAWING)
    try:
        answer = words(reader.certify(scan, n=NOISES, alpha=ALPHA), reader.config.side)
    except (RuntimeError, ValueError, MemoryError):
        log.exception("a certificate failed")
        answer = FAILED
    yield say(answer) if turn.reading == mine else gr.skip()


def words(found: Certificate, side: int) -> str:
    """The certificate of the smoothed model, as sentences."""
    whose = WHOSE.format(side=side)
    if found.label is None:
        return (
            "Not certified: the smoothed reader's answer changes with the noise, so that it says "
            f"nothing. {whose}"
        )
    least = math.floor(found.eps * 1e4)  # a proof is not rounded up
    return (
        f"Certified at ε = {least / 1e4:.4f} (L∞): the smoothed reader says "
        f"“{wording.CLASSES[found.label]}”, and no change of at most that size in each pixel can "
        f"turn it. Such a proof is wrong with a chance of {ALPHA:.1%} at most. {whose}"
    )
