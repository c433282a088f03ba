"""The tab Learn: a lesson of five steps on a synthetic scan, and a quiz, computed as one goes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from core.pipeline import MedFedPure
from core.scan import from_uint8, to_uint8
from demo.examples import Example
from demo.learn import lesson, quiz, views
from demo.learn.lesson import MAX_LEVELS, MAX_T, STEPS, Lesson
from demo.learn.quiz import NAMES, Round, Tally
from demo.learn.text import QUIZ, TEXTS
from demo.phantom import phantom
from demo.rendering import images
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
KEEP_SECONDS = 3600
FAILED = "That computation failed: please try again."
FIRST = "First choose a scan in step 1."
NO_STEPS = "First attack the scan."
Computation = Callable[..., Iterator[tuple[Lesson, str]]]
SEE, ATTACK, DETECT, PURIFY, VOTE = range(5)


class Learn:
    """Five steps, each with a button of its own, and a quiz without end."""

    def __init__(self, system: MedFedPure | None, samples: Sequence[Example]) -> None:
        self.system = system
        self.scans = [(s.levels, s.tumour) for s in samples[:5]]
        self.scans = self.scans or [(to_uint8(phantom(0, tumour=True)), True)]
        self.lesson = gr.State(None, time_to_live=KEEP_SECONDS)
        self.round = gr.State(None, time_to_live=KEEP_SECONDS)
        self.tally = gr.State(Tally(), time_to_live=KEEP_SECONDS)
        # made before they are placed: an early step clears what later ones showed
        self.views = [gr.HTML(elem_id=f"learned-{i}", render=False) for i in range(5)]
        self.step = gr.Slider(
            0, STEPS, STEPS, step=1, label="Step of the attack", elem_id="lesson-step", render=False
        )
        makers = (self._see, self._attack, self._detect, self._purify, self._vote, self._quiz)
        pages = zip(makers, (*TEXTS, QUIZ), strict=True)
        with gr.Tabs(selected=0, elem_id="lesson") as self.walk:
            for index, (make, (label, text)) in enumerate(pages):
                with gr.Tab(label, id=index, elem_id=f"lesson-{index}"):
                    gr.HTML(f'<div class="mf-lesson">{text}</div>')
                    make()
                    self._turn(index, len(makers) - 1)

    def _see(self) -> None:
        urls = [images.scan_url(from_uint8(levels)) for levels, _ in self.scans]
        rules = (f"#look-{i} {{ background-image: url({url}); }}" for i, url in enumerate(urls))
        gr.HTML(f"<style>{''.join(rules)}</style>")
        with gr.Row(elem_id="looks"):
            for i, (levels, tumour) in enumerate(self.scans):
                button = self._button(f"Scan {i + 1}", f"look-{i}", "secondary")
                self._compute(button, _looker(levels, tumour), [], SEE)
        self.views[SEE].render()

    def _attack(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            levels = gr.Slider(
                0, MAX_LEVELS, 4, step=1, elem_id="lesson-levels",
                label="The attacker may change each pixel by at most so many of 255 levels",
            )  # fmt: skip
            button = self._button("Attack the scan", "lesson-attack")
            self.step.render()
        self.views[ATTACK].render()
        self._compute(button, _attack, [self.lesson, levels], ATTACK)
        self.step.input(
            _step, [self.lesson, self.step], self.views[ATTACK],
            trigger_mode="always_last", queue=False, **PRIVATE,
        )  # fmt: skip

    def _detect(self) -> None:
        button = self._button("Ask the detector", "lesson-detect")
        self.views[DETECT].render()
        self._compute(button, _detect, [self.lesson], DETECT)

    def _purify(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            depth = gr.Slider(
                0, MAX_T, 100, step=10, elem_id="lesson-depth",
                label="Depth t*: steps of noise, of the diffusion's 1000",
            )  # fmt: skip
            button = self._button("Purify the attacked scan", "lesson-purify")
        self.views[PURIFY].render()
        self._compute(button, _purify, [self.lesson, depth], PURIFY)

    def _vote(self) -> None:
        button = self._button("Let the experts vote", "lesson-vote")
        self.views[VOTE].render()
        self._compute(button, _vote, [self.lesson], VOTE)

    def _quiz(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            new = self._button("New pair", "quiz-new")
            guesses = [
                gr.Button(f"{name} was attacked", interactive=False, elem_id=f"quiz-{name}")
                for name in NAMES
            ]
        view = gr.HTML(_said(quiz.START), elem_id="quiz-view")
        new.click(
            self._deal, None, [self.round, view, *guesses],
            show_progress_on=view, api_visibility="private", **ON_CPU,
        )  # fmt: skip
        for guess, button in enumerate(guesses):
            button.click(
                _guesser(guess), [self.round, self.tally],
                [self.round, self.tally, view, *guesses], queue=False, **PRIVATE,
            )  # fmt: skip

    def _turn(self, index: int, last: int) -> None:
        """The buttons at a step's end that lead to the one before and the one after."""
        with gr.Row(elem_classes="mf-turn"):
            for to, words in ((index - 1, "Back"), (index + 1, "Next")):
                if 0 <= to <= last:
                    button = gr.Button(words, size="sm", elem_id=f"lesson-{index}-{words.lower()}")
                    button.click(_selector(to), None, self.walk, queue=False, **PRIVATE)

    def _button(self, words: str, name: str, variant: Any = "primary") -> gr.Button:
        return gr.Button(words, variant=variant, elem_id=name, interactive=self.system is not None)

    def _compute(self, button: gr.Button, run: Computation, inputs: list[Any], shows: int) -> None:
        """Runs on click; a new scan and a new attack clear what later steps showed."""
        system = self.system

        def handle(*values: Any) -> Iterator[tuple[Any, ...]]:
            before = [gr.skip()] * shows
            after = [""] * (VOTE - shows) if shows <= ATTACK else [gr.skip()] * (VOTE - shows)
            if system is None or (values and values[0] is None):
                yield gr.skip(), gr.skip(), *before, _said(FIRST), *after
                return
            try:
                for now, html in run(system, *values):
                    index = len(now.steps) - 1 if shows == ATTACK else gr.skip()
                    yield now, index, *before, html, *after
            except (RuntimeError, ValueError, MemoryError):
                log.exception("a step of the lesson failed")
                yield gr.skip(), gr.skip(), *before, _said(FAILED), *after

        button.click(
            handle,
            inputs,
            [self.lesson, self.step, *self.views],
            show_progress="minimal",
            show_progress_on=self.views[shows],
            api_visibility="private",
            **ON_CPU,
        )

    def _deal(self) -> tuple[Any, ...]:
        if self.system is None:
            return None, _said(FAILED), *_enabled(False)
        try:
            dealt = quiz.draw_round(self.system, secrets.randbelow(2**31))
        except (RuntimeError, ValueError, MemoryError):
            log.exception("a round of the quiz failed")
            return None, _said(FAILED), *_enabled(False)
        return dealt, quiz.render_question(dealt), *_enabled(True)


def _looker(levels: np.ndarray, tumour: bool) -> Computation:
    def see(system: MedFedPure) -> Iterator[tuple[Lesson, str]]:
        now = lesson.read_clean(system, from_uint8(levels), tumour)
        yield now, views.render_scan(now, system.config.moe.sides)

    return see


def _attack(system: MedFedPure, now: Lesson, levels: float) -> Iterator[tuple[Lesson, str]]:
    for going in lesson.attack(system, now, int(levels)):
        yield going, views.render_attack_step(going, len(going.steps) - 1)


def _detect(system: MedFedPure, now: Lesson) -> Iterator[tuple[Lesson, str]]:
    now = lesson.detect(system, now)
    yield now, views.render_detection(now)


def _purify(system: MedFedPure, now: Lesson, depth: float) -> Iterator[tuple[Lesson, str]]:
    now, purified = lesson.purify(system, now, int(depth))
    yield now, views.render_purification(now, purified)


def _vote(system: MedFedPure, now: Lesson) -> Iterator[tuple[Lesson, str]]:
    now = lesson.detect(system, now)
    yield now, views.render_mixture(now)


def _step(now: Lesson | None, index: float) -> str:
    """The attack's picture at another step: shown, not computed."""
    return (views.render_attack_step(now, int(index)) if now else "") or _said(NO_STEPS)


def _guesser(guess: int) -> Callable[[Round | None, Tally], tuple[Any, ...]]:
    def judge(dealt: Round | None, tally: Tally) -> tuple[Any, ...]:
        if dealt is None:
            return None, tally, _said(quiz.START), *_enabled(False)
        tally = tally.add(dealt, guess)
        return None, tally, quiz.render_answer(dealt, guess, tally), *_enabled(False)

    return judge


def _selector(index: int) -> Callable[[], Any]:
    return lambda: gr.Tabs(selected=index)


def _enabled(yes: bool) -> list[Any]:
    return [gr.update(interactive=yes) for _ in NAMES]


def _said(words: str) -> str:
    return f'<p class="mf-say">{words}</p>'
