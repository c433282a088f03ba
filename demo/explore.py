"""The tab Explore: its widgets, and which handler answers which event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from core.pipeline import MedFedPure
from demo import handlers, results, wording
from demo.controls import Controls, enable, eps_note, read_settings, rescale
from demo.events import ON_CPU, PRIVATE
from demo.examples import Example
from demo.intake import Inbox
from demo.stages import Stages

KEEP_SECONDS = 3600
UNKNOWN = "unknown"  # the label of a scan that a visitor brings
MARK_STALE = "() => { document.querySelector('#results')?.classList.add('stale'); }"
UNMARK = """(...values) => {
  document.querySelector('#results')?.classList.remove('stale');
  return values;
}"""


class Turn:
    """What a visitor wants now; a step of anything earlier that is still on its way is dropped.

    Cancelling alone does not do that: a step that runs when it comes ends in its own time, and
    would have the last word.
    """

    def __init__(self) -> None:
        self.number = 0

    def next(self) -> int:
        """Begins a turn, and so ends the one before."""
        self.number += 1
        return self.number


class Explore:
    """One scan at a time: chosen, attacked, read without and with the defence."""

    def __init__(
        self, system: MedFedPure | None, problem: str, samples: Sequence[Example], inbox: Inbox
    ) -> None:
        self.system, self.problem, self.inbox = system, problem, inbox
        self.turn = gr.State(Turn(), time_to_live=KEEP_SECONDS)  # each visitor gets a copy
        self.levels = gr.State(None, time_to_live=KEEP_SECONDS)
        self.refused = gr.State(None, time_to_live=KEEP_SECONDS)
        with gr.Row(elem_id="columns", equal_height=False):
            with gr.Column(elem_id="controls", scale=0, min_width=300):
                self.controls = Controls(samples, can_analyse=system is not None)
            with gr.Column(elem_id="main", scale=1, min_width=640):
                self.stages = gr.HTML(Stages().html(), elem_id="stages")
                self.results = gr.HTML(results.empty(problem or handlers.HINT), elem_id="results")
        self._events()

    def _events(self) -> None:
        c = self.controls
        # what a newly chosen scan changes: nothing of an earlier one stays on the page
        chosen = [c.truth, self.levels, self.refused, c.status, c.insist, self.stages, self.results]
        analysis = c.run.click(
            self._analyse,
            [self.turn, self.levels, *c.settings],
            [self.stages, self.results],
            js=UNMARK,
            # "once" would wait for ever for an event that was cancelled in the middle of a step
            trigger_mode="multiple",
            show_progress="minimal",  # the place in the queue, where others are served first
            show_progress_on=self.stages,
            api_visibility="private",
            **ON_CPU,
        )
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        c.stop.click(_stopped, self.turn, self.stages, cancels=analysis, **at_once)
        # raw: our decoder reads the stored file, which Gradio has checked to be an upload
        c.file.upload(
            self._receive,
            [self.turn, c.file],
            [c.file, *chosen],
            cancels=analysis,
            preprocess=False,
            **PRIVATE,
        )
        c.insist.input(
            handlers.insist, [c.insist, self.refused], [self.levels, c.status], **at_once
        )
        c.clear.click(self._clear, self.turn, [c.file, *chosen], cancels=analysis, **at_once)
        for button, sample in c.samples:
            button.click(self._taker(sample), self.turn, chosen, cancels=analysis, **at_once)
        for control in c.settings:
            control.input(None, None, None, js=MARK_STALE, **PRIVATE)
        c.norm.input(rescale, c.norm, [c.eps, c.alpha, c.eps_note], **at_once)
        c.kind.input(enable, c.kind, [c.norm, c.eps, c.alpha, c.steps], **at_once)
        c.eps.input(eps_note, [c.norm, c.eps], c.eps_note, trigger_mode="always_last", **at_once)

    def _analyse(
        self, turn: Turn, levels: np.ndarray | None, *values: Any
    ) -> Iterator[tuple[Any, Any]]:
        mine = turn.next()
        if self.system is None or levels is None:
            yield Stages().html(), results.empty(self._hint(levels))
            return
        try:
            settings = read_settings(*values)
        except (TypeError, ValueError) as error:
            yield Stages().html(), results.empty(f"Please correct a control: {error}.")
        else:
            for shown in handlers.analyse(self.system, levels, settings):
                if turn.number != mine:  # what is yielded last is sent once more at the end
                    yield gr.skip(), gr.skip()
                    return
                yield shown

    def _receive(self, turn: Turn, stored: dict[str, Any] | None) -> tuple[Any, ...]:
        turn.next()
        upload = self.inbox.take(stored["path"]) if stored else None
        levels, refused, status = handlers.receive(upload)
        insist = gr.update(visible=refused is not None, value=False)
        return None, UNKNOWN, levels, refused, status, insist, *self._fresh(levels)

    def _clear(self, turn: Turn) -> tuple[Any, ...]:
        turn.next()
        status = handlers.scan_line(None, handlers.HINT)
        gone = Stages().html(), results.empty(wording.CLEARED)
        return None, UNKNOWN, None, None, status, _hidden(), *gone

    def _taker(self, sample: Example) -> Callable[[Turn], tuple[Any, ...]]:
        """The handler of an example's button: takes its scan, and sets the truth as drawn."""
        truth = wording.CLASSES[int(sample.tumour)]
        status = handlers.scan_line(sample.levels, sample.sentence())

        def take(turn: Turn) -> tuple[Any, ...]:
            turn.next()
            return truth, sample.levels, None, status, _hidden(), *self._fresh(sample.levels)

        return take

    def _fresh(self, levels: np.ndarray | None) -> tuple[str, str]:
        return Stages().html(), results.empty(self._hint(levels))

    def _hint(self, levels: np.ndarray | None) -> str:
        return self.problem or (handlers.HINT if levels is None else handlers.READY)


def _stopped(turn: Turn) -> str:
    turn.next()
    return Stages(line="Stopped: what is shown is incomplete.").html()


def _hidden() -> Any:
    return gr.update(visible=False, value=False)
