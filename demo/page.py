"""The page: widgets, where they stand, and which handler answers which event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

import core
from core.checkpoint import WeightsError
from core.pipeline import MedFedPure
from core.scan import from_uint8
from demo import examples as gallery
from demo import figures, handlers, results, wording
from demo.attacking import MAX_EPS, MAX_STEPS, AttackSettings
from demo.examples import Example
from demo.intake import ScanFile, Upload
from demo.stages import Stages

KEEP_SECONDS = 3600
DEFAULTS = AttackSettings()
NORM_DEFAULTS = {
    "linf": (0.015, 0.003, 0.001),
    "l2": (2.0, 0.5, 0.1),
}  # eps, alpha, the sliders' step
STALE = "() => { document.querySelector('#results')?.classList.add('stale'); }"
FRESH = "(...values) => { document.querySelector('#results')?.classList.remove('stale'); return values; }"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
ON_CPU: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "cpu"}


def build(system: MedFedPure | None = None, samples: Sequence[Example] | None = None) -> gr.Blocks:
    """The app.

    Args:
        system: the pipeline to show; by default the shipped one. Where its weights are missing or refused
            the page says so and analyses nothing.
        samples: the example scans; by default those that ship with the page.

    Returns:
        Blocks with a queue, to be launched with `demo.theme.launch_settings()`.
    """
    problem = ""
    if system is None:
        try:
            system = core.load()
        except WeightsError as error:
            problem = str(error)
    samples = gallery.load() if samples is None else samples
    with gr.Blocks(title="MedFedPure", fill_width=True, analytics_enabled=False) as blocks:
        _Page(system, problem, samples)
    blocks.queue(max_size=16)
    return blocks


class _Page:
    """Widgets as attributes, so that events can name them."""

    def __init__(self, system: MedFedPure | None, problem: str, samples: Sequence[Example]) -> None:
        self.system, self.problem, self.samples = system, problem, samples
        self.levels = gr.State(None, time_to_live=KEEP_SECONDS)
        self.refused = gr.State(None, time_to_live=KEEP_SECONDS)
        gr.HTML(_header(problem), elem_id="header")
        with gr.Row(elem_id="columns", equal_height=False):
            with gr.Column(elem_id="controls", scale=0, min_width=300):
                self._scan_controls()
                self._attack_controls()
            with gr.Column(elem_id="main", scale=1, min_width=640):
                self.stages = gr.HTML(Stages().html(), elem_id="stages")
                self.results = gr.HTML(results.empty(problem or handlers.HINT), elem_id="results")
        self._events()
        self._api()

    def _scan_controls(self) -> None:
        gr.HTML("<h2>1 · Scan</h2>")
        self.file = ScanFile(
            label="PNG, JPEG, BMP, TIFF or WebP, up to 20 MB",
            height=84,
            interactive=True,
            elem_id="file",
        )
        self.status = gr.HTML(handlers.scan_line(None, handlers.HINT), elem_id="scan")
        self.insist = gr.Checkbox(
            label="Read this colour picture all the same", visible=False, elem_id="insist"
        )
        self.examples = []
        if self.samples:
            gr.HTML(
                f"<h3>Synthetic examples</h3>{_thumbnails(self.samples)}", elem_id="samples-head"
            )
            with gr.Row(elem_id="samples"):
                for index, sample in enumerate(self.samples):
                    button = gr.Button(
                        sample.name,
                        size="sm",
                        min_width=60,
                        elem_id=f"sample-{index}",
                        elem_classes="sample",
                    )
                    self.examples.append((button, sample))

    def _attack_controls(self) -> None:
        gr.HTML("<h2>2 · Attack</h2>")
        d = DEFAULTS
        kinds = [("PGD", "pgd"), ("FGSM", "fgsm"), ("none", "none")]
        norms = [("L∞", "linf"), ("L2", "l2")]
        with gr.Row(elem_classes="pair"):
            self.kind = gr.Radio(kinds, value=d.kind, label="Kind", elem_id="kind", min_width=150)
            self.norm = gr.Radio(norms, value=d.norm, label="Norm", elem_id="norm", min_width=80)
        self.eps = gr.Slider(0, MAX_EPS[d.norm], d.eps, step=0.001, label="ε, size", elem_id="eps")
        self.eps_note = gr.HTML(_note(wording.eps_note(d.norm, d.eps)), elem_id="eps-note")
        self.alpha = gr.Slider(
            0.001, 0.02, d.alpha, step=0.001, label="α, step size", elem_id="alpha"
        )
        self.steps = gr.Slider(1, MAX_STEPS, d.steps, step=1, label="Steps", elem_id="steps")
        aims = [("plain classifier", "plain"), ("mixture", "mixture"), ("the defence", "defence")]
        self.aim = gr.Radio(
            aims, value=d.aim, label="The attacker knows and attacks", elem_id="aim"
        )
        truths = [("own output", "unknown"), ("no tumour", "no tumour"), ("tumour", "tumour")]
        self.truth = gr.Radio(
            truths,
            value=d.truth,
            label="Label to attack: own clean output, or the truth",
            elem_id="truth",
        )
        self.seed = gr.Number(
            d.seed, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, elem_id="seed"
        )
        can = self.system is not None
        with gr.Row(elem_id="actions"):
            self.run = gr.Button(
                "Analyse", variant="primary", interactive=can, elem_id="analyse", min_width=90
            )
            self.stop = gr.Button("Stop", interactive=can, elem_id="stop", min_width=60)
            self.clear = gr.Button("Clear", elem_id="clear", min_width=60)

    def _events(self) -> None:
        controls = [
            self.kind,
            self.norm,
            self.eps,
            self.alpha,
            self.steps,
            self.aim,
            self.truth,
            self.seed,
        ]
        chosen = [self.levels, self.refused, self.status, self.insist, self.stages, self.results]
        analysis = self.run.click(
            self._analyse,
            [self.levels, *controls],
            [self.stages, self.results],
            js=FRESH,
            **ON_CPU,
            **PRIVATE,
        )
        stopped = Stages().set("Stopped: what is shown is incomplete.", "idle").html()
        self.stop.click(
            lambda: stopped, None, self.stages, cancels=analysis, queue=False, **PRIVATE
        )
        self.file.upload(
            self._receive, self.file, [self.file, *chosen], cancels=analysis, **PRIVATE
        )
        self.insist.input(
            handlers.insist,
            [self.insist, self.refused],
            [self.levels, self.status],
            queue=False,
            **PRIVATE,
        )
        self.clear.click(
            self._clear, None, [self.file, *chosen], cancels=analysis, queue=False, **PRIVATE
        )
        for button, sample in self.examples:
            button.click(
                _taker(sample),
                None,
                [self.truth, *chosen],
                cancels=analysis,
                queue=False,
                **PRIVATE,
            )
        for control in controls:
            control.input(None, None, None, js=STALE, **PRIVATE)
        self.norm.input(
            _rescale, self.norm, [self.eps, self.alpha, self.eps_note], queue=False, **PRIVATE
        )
        self.eps.input(
            lambda norm, eps: _note(wording.eps_note(norm, eps)),
            [self.norm, self.eps],
            self.eps_note,
            queue=False,
            trigger_mode="always_last",
            **PRIVATE,
        )
        self.kind.input(
            _enable,
            self.kind,
            [self.norm, self.eps, self.alpha, self.steps],
            queue=False,
            **PRIVATE,
        )

    def _api(self) -> None:
        """One public endpoint; its widgets are never shown."""
        with gr.Row(visible=False):
            file = ScanFile(label="scan")
            any_picture = gr.Checkbox(False, label="any_picture")
            seed = gr.Number(0, precision=0, label="seed")
            answer = gr.JSON(label="diagnosis")
            gr.Button().click(
                self._read,
                [file, any_picture, seed],
                answer,
                api_name="read",
                api_description=API,
                **ON_CPU,
            )

    def _analyse(self, levels: np.ndarray | None, *controls: Any) -> Iterator[tuple[str, str]]:
        if self.system is None:
            yield Stages().fail(self.problem).html(), results.empty(self.problem)
        elif levels is None:
            yield Stages().html(), results.empty(handlers.HINT)
        else:
            try:
                settings = _settings(*controls)
            except (TypeError, ValueError) as error:
                yield Stages().html(), results.empty(f"Please correct a control: {error}.")
            else:
                yield from handlers.analyse(self.system, levels, settings)

    def _receive(self, upload: Upload | None) -> tuple[Any, ...]:
        levels, refused, status = handlers.receive(upload)
        insist = gr.update(visible=refused is not None, value=False)
        return (
            None,
            levels,
            refused,
            status,
            insist,
            Stages().html(),
            results.empty(self._hint(levels)),
        )

    def _clear(self) -> tuple[Any, ...]:
        hidden = gr.update(visible=False, value=False)
        status = handlers.scan_line(None, handlers.HINT)
        return None, None, None, status, hidden, Stages().html(), results.empty(wording.CLEARED)

    def _hint(self, levels: np.ndarray | None) -> str:
        return self.problem or (handlers.HINT if levels is None else handlers.READY)

    def _read(self, upload: Upload | None, any_picture: bool, seed: float) -> dict[str, Any]:
        if self.system is None:
            raise gr.Error(self.problem, print_exception=False)
        try:
            return handlers.read_once(self.system, upload, bool(any_picture), int(seed))
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None


API = """Reads one scan with the whole defence and returns one JSON object.

scan: a picture file. any_picture: read a colour picture too. seed: of the purifier's noise.
Returns tumour_probability (defended), tumour_probability_undefended (plain classifier),
tumour_probability_unpurified, flagged, score, score_name, scores, tau, confidence, t_star, attention,
expert_probabilities, timings_ms, seed. Research and teaching only - not for clinical use."""


def _settings(
    kind: str,
    norm: str,
    eps: float,
    alpha: float,
    steps: float,
    aim: str,
    truth: str,
    seed: float | None,
) -> AttackSettings:
    return AttackSettings(
        kind, norm, float(eps), float(alpha), int(steps), aim, truth, int(seed or 0)
    )


def _rescale(norm: str) -> tuple[Any, Any, str]:
    """Sliders in the norm's own units."""
    eps, alpha, step = NORM_DEFAULTS[norm]
    top = 0.02 if norm == "linf" else 4.0
    return (
        gr.update(maximum=MAX_EPS[norm], step=step, value=eps),
        gr.update(minimum=step, maximum=top, step=step, value=alpha),
        _note(wording.eps_note(norm, eps)),
    )


def _enable(kind: str) -> tuple[Any, ...]:
    attacks, walks = gr.update(interactive=kind != "none"), gr.update(interactive=kind == "pgd")
    return attacks, attacks, walks, walks


def _taker(sample: Example) -> Any:
    """The handler of one example's button: takes its scan, and sets the truth that was drawn."""
    truth = wording.CLASSES[int(sample.tumour)]

    def take() -> tuple[Any, ...]:
        hidden = gr.update(visible=False, value=False)
        status = handlers.scan_line(sample.levels, sample.sentence())
        return (
            truth,
            sample.levels,
            None,
            status,
            hidden,
            Stages().html(),
            results.empty(handlers.READY),
        )

    return take


def _thumbnails(samples: Sequence[Example]) -> str:
    """The examples' pictures as the backgrounds of their buttons."""
    rules = "".join(
        f"#sample-{i} {{ background-image: url({figures.scan_url(from_uint8(s.levels))}); }}"
        for i, s in enumerate(samples)
    )
    return f"<style>{rules}</style>"


def _note(text: str) -> str:
    return f'<p class="mf-note">{escape(text)}</p>'


def _header(problem: str) -> str:
    banner = f'<div class="mf-banner" role="alert">{escape(problem)}</div>' if problem else ""
    return (
        '<header class="mf-header"><h1>MedFedPure</h1>'
        "<p>Brain MRI, attacked and defended</p>"
        f'<p class="mf-notice">{escape(wording.NOTICE)}</p></header>{banner}'
    )
