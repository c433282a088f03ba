"""The tab Learn: a lesson of seven steps on a synthetic scan, and a quiz."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from core.pipeline import MedFedPure
from core.scan import from_uint8, to_uint8
from demo.analysis.counterfactual import search_changes
from demo.examples import Example
from demo.learn import lesson, quiz, views
from demo.learn.lesson import MAX_LEVELS, MAX_T, STEPS, Lesson
from demo.learn.quiz import NAMES, Round, Tally
from demo.learn.text import QUIZ, TEXTS
from demo.phantom import draw_phantom
from demo.rendering import images
from demo.rendering.counterfactual import render_changes
from demo.rendering.html import render_placeholder
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
KEEP_SECONDS = 3600
FAILURE_MESSAGE = "The computation failed: please try again."
NO_SCAN_MESSAGE = "First choose a scan in step 1."
NO_ATTACK_MESSAGE = "First attack the scan."
SHOWN_CHANGES = 10  # steps of the search between pictures
Computation = Callable[..., Iterator[tuple[Lesson, str]]]
SCAN, ATTACK, DETECT, PURIFY, VOTE, HEAT, CHANGE = range(7)
EMPTY = [
    render_placeholder(words)
    for words in (
        "The scan and its numbers.",
        "Each step of the attack.",
        "Error maps and both scores.",
        "The scan, noised and purified.",
        "Each expert's weight, vote and share.",
        "Grad-CAM beside the tumour map.",
        "The scan, changed until each answer turns.",
    )
]


class LearnTab:
    """Tab with seven steps, each with its own button, and a quiz."""

    def __init__(self, system: MedFedPure | None, samples: Sequence[Example]) -> None:
        self.system = system
        self.scans = [(s.levels, s.tumour) for s in samples[:5]]
        self.scans = self.scans or [(to_uint8(draw_phantom(0, tumour=True)), True)]
        self.lesson = gr.State(None, time_to_live=KEEP_SECONDS)
        self.round = gr.State(None, time_to_live=KEEP_SECONDS)
        self.tally = gr.State(Tally(), time_to_live=KEEP_SECONDS)
        # created before they are placed: an early step clears the views of later ones
        self.views = [
            gr.HTML(html, elem_id=f"learned-{i}", render=False) for i, html in enumerate(EMPTY)
        ]
        self.step = gr.Slider(
            0, STEPS, STEPS, step=1, label="Step of the attack", elem_id="lesson-step", render=False
        )
        makers = (
            self._build_scan,
            self._build_attack,
            self._build_detect,
            self._build_purify,
            self._build_vote,
            self._build_heat,
            self._build_change,
            self._build_quiz,
        )
        pages = zip(makers, (*TEXTS, QUIZ), strict=True)
        with gr.Tabs(selected=0, elem_id="lesson") as self.tabs:
            for index, (make, (label, text)) in enumerate(pages):
                with gr.Tab(label, id=index, elem_id=f"lesson-{index}"):
                    gr.HTML(f'<div class="mf-lesson">{text}</div>')
                    make()
                    self._build_navigation(index, len(makers) - 1)

    def _build_scan(self) -> None:
        urls = [images.encode_scan(from_uint8(levels)) for levels, _ in self.scans]
        rules = (f"#look-{i} {{ background-image: url({url}); }}" for i, url in enumerate(urls))
        gr.HTML(f"<style>{''.join(rules)}</style>")
        with gr.Row(elem_id="looks"):
            for i, (levels, tumour) in enumerate(self.scans):
                button = self._button(f"Scan {i + 1}", f"look-{i}", "secondary")
                self._compute(button, _make_scan_handler(levels, tumour), [], SCAN)
        self.views[SCAN].render()

    def _build_attack(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            levels = gr.Slider(
                0, MAX_LEVELS, 4, step=1, elem_id="lesson-levels",
                label="Largest change of a pixel, in levels of 255 (eps)",
            )  # fmt: skip
            button = self._button("Attack the scan", "lesson-attack")
            self.step.render()
        self.views[ATTACK].render()
        self._compute(button, _attack, [self.lesson, levels], ATTACK)
        self.step.input(
            _show_step, [self.lesson, self.step], self.views[ATTACK],
            trigger_mode="always_last", queue=False, **PRIVATE,
        )  # fmt: skip

    def _build_detect(self) -> None:
        button = self._button("Ask the detector", "lesson-detect")
        self.views[DETECT].render()
        self._compute(button, _detect, [self.lesson], DETECT)

    def _build_purify(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            depth = gr.Slider(
                0, MAX_T, 100, step=10, elem_id="lesson-depth",
                label="Depth t*, in diffusion steps (of 1000)",
            )  # fmt: skip
            button = self._button("Purify the attacked scan", "lesson-purify")
        self.views[PURIFY].render()
        self._compute(button, _purify, [self.lesson, depth], PURIFY)

    def _build_vote(self) -> None:
        button = self._button("Let the experts vote", "lesson-vote")
        self.views[VOTE].render()
        self._compute(button, _vote, [self.lesson], VOTE)

    def _build_heat(self) -> None:
        button = self._button("Compare the maps", "lesson-heat")
        self.views[HEAT].render()
        self._compute(button, _map_heat, [self.lesson], HEAT)

    def _build_change(self) -> None:
        button = self._button("Show what it would take", "lesson-change")
        self.views[CHANGE].render()
        self._compute(button, _change, [self.lesson], CHANGE)

    def _build_quiz(self) -> None:
        with gr.Row(elem_classes="mf-controls"):
            new = self._button("New pair", "quiz-new")
            guesses = [
                gr.Button(f"{name} was attacked", interactive=False, elem_id=f"quiz-{name}")
                for name in NAMES
            ]
        view = gr.HTML(_render_sentence(quiz.START_MESSAGE), elem_id="quiz-view")
        new.click(
            self._draw, None, [self.round, view, *guesses],
            show_progress_on=view, api_visibility="private", **ON_CPU,
        )  # fmt: skip
        for guess, button in enumerate(guesses):
            button.click(
                _make_judge(guess), [self.round, self.tally],
                [self.round, self.tally, view, *guesses], queue=False, **PRIVATE,
            )  # fmt: skip

    def _build_navigation(self, index: int, last: int) -> None:
        """Place the buttons Back and Next at a step's end."""
        with gr.Row(elem_classes="mf-turn"):
            for to, words in ((index - 1, "Back"), (index + 1, "Next")):
                if 0 <= to <= last:
                    button = gr.Button(words, size="sm", elem_id=f"lesson-{index}-{words.lower()}")
                    button.click(_make_selector(to), None, self.tabs, queue=False, **PRIVATE)

    def _button(self, words: str, name: str, variant: Any = "primary") -> gr.Button:
        return gr.Button(words, variant=variant, elem_id=name, interactive=self.system is not None)

    def _compute(self, button: gr.Button, run: Computation, inputs: list[Any], shows: int) -> None:
        """Run on click; a new scan and a new attack clear the views of later steps."""
        system = self.system

        def handle(*values: Any) -> Iterator[tuple[Any, ...]]:
            before = [gr.skip()] * shows
            after = EMPTY[shows + 1 :] if shows <= ATTACK else [gr.skip()] * (CHANGE - shows)
            if system is None or (values and values[0] is None):
                yield gr.skip(), gr.skip(), *before, _render_sentence(NO_SCAN_MESSAGE), *after
                return
            try:
                for current, html in run(system, *values):
                    index = len(current.steps) - 1 if shows == ATTACK else gr.skip()
                    yield current, index, *before, html, *after
            except (RuntimeError, ValueError, MemoryError):
                log.exception("a step of the lesson failed")
                yield gr.skip(), gr.skip(), *before, _render_sentence(FAILURE_MESSAGE), *after

        button.click(
            handle,
            inputs,
            [self.lesson, self.step, *self.views],
            show_progress="minimal",
            show_progress_on=self.views[shows],
            api_visibility="private",
            **ON_CPU,
        )

    def _draw(self) -> tuple[Any, ...]:
        if self.system is None:
            return None, _render_sentence(FAILURE_MESSAGE), *_enable_guesses(False)
        try:
            pair = quiz.draw_round(self.system, secrets.randbelow(2**31))
        except (RuntimeError, ValueError, MemoryError):
            log.exception("a round of the quiz failed")
            return None, _render_sentence(FAILURE_MESSAGE), *_enable_guesses(False)
        return pair, quiz.render_question(pair), *_enable_guesses(True)


def _make_scan_handler(levels: np.ndarray, tumour: bool) -> Computation:
    def see(system: MedFedPure) -> Iterator[tuple[Lesson, str]]:
        current = lesson.read_clean(system, from_uint8(levels), tumour)
        yield current, views.render_scan(current, system.config.moe.sides)

    return see


def _attack(system: MedFedPure, current: Lesson, levels: float) -> Iterator[tuple[Lesson, str]]:
    for step in lesson.attack(system, current, int(levels)):
        yield step, views.render_attack_step(step, len(step.steps) - 1)


def _detect(system: MedFedPure, current: Lesson) -> Iterator[tuple[Lesson, str]]:
    current = lesson.detect(system, current)
    yield current, views.render_detection(current)


def _purify(system: MedFedPure, current: Lesson, depth: float) -> Iterator[tuple[Lesson, str]]:
    current, purified = lesson.purify(system, current, int(depth))
    yield current, views.render_purification(current, purified)


def _vote(system: MedFedPure, current: Lesson) -> Iterator[tuple[Lesson, str]]:
    current = lesson.detect(system, current)
    yield current, views.render_mixture(current, system.config.moe.sides)


def _map_heat(system: MedFedPure, current: Lesson) -> Iterator[tuple[Lesson, str]]:
    current = lesson.map_heat(system, current)
    yield current, views.render_heat_map(current)


def _change(system: MedFedPure, current: Lesson) -> Iterator[tuple[Lesson, str]]:
    for index, changes in enumerate(search_changes(system, current.scan)):
        if index % SHOWN_CHANGES == 0:
            yield current, render_changes(current.scan, changes, done=False)
    yield current, render_changes(current.scan, changes)


def _show_step(current: Lesson | None, index: float) -> str:
    """Render the attack at another step, without computing."""
    return (views.render_attack_step(current, int(index)) if current else "") or _render_sentence(
        NO_ATTACK_MESSAGE
    )


def _make_judge(guess: int) -> Callable[[Round | None, Tally], tuple[Any, ...]]:
    def judge(pair: Round | None, tally: Tally) -> tuple[Any, ...]:
        if pair is None:
            return None, tally, _render_sentence(quiz.START_MESSAGE), *_enable_guesses(False)
        tally = tally.add(pair, guess)
        return None, tally, quiz.render_answer(pair, guess, tally), *_enable_guesses(False)

    return judge


def _make_selector(index: int) -> Callable[[], Any]:
    return lambda: gr.Tabs(selected=index)


def _enable_guesses(yes: bool) -> list[Any]:
    return [gr.update(interactive=yes) for _ in NAMES]


def _render_sentence(words: str) -> str:
    return f'<p class="mf-say">{words}</p>'
