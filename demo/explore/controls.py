"""Left column: the scan's drop area and examples, the attack's controls, the buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from core.pipeline import MedFedPure, PipelineConfig
from core.scan import from_uint8
from demo.analysis.attack import MAX_EPS, MAX_STEPS, AttackSettings
from demo.examples import Example
from demo.explore import selection
from demo.rendering import images, wording
from demo.rendering.html import render_sentence
from demo.rendering.stability_cost import describe_cost

DEFAULTS = AttackSettings()
# eps, alpha, largest alpha and the sliders' step, in each norm's own units
NORM_SCALES = {"linf": (0.015, 0.003, 0.02, 0.001), "l2": (2.0, 0.5, 4.0, 0.1)}
KINDS = [("PGD, many steps", "pgd"), ("FGSM, one", "fgsm"), ("none", "none")]
SCORES = [("fused (ours)", "fused"), ("error (paper)", "paper")]
POLICIES = [
    ("no, the scan itself", "picture"), ("flagged scans", "paper"), ("all scans", "floor")
]  # fmt: skip
NORMS = [("L∞", "linf"), ("L2", "l2")]
AIMS = [("plain classifier", "plain"), ("mixture", "mixture"), ("the defence", "defence")]
TRUTHS = [("own output", "unknown"), ("no tumour", "no tumour"), ("tumour", "tumour")]
MAX_SEED = 2**31 - 1
MIN_D, MAX_D = 0.001, 0.03  # of stability: larger changes of a scan can be seen


class Controls:
    """Widgets of the column, as attributes to which events are connected."""

    def __init__(
        self,
        samples: Sequence[Example],
        system: MedFedPure | None,
        hospitals: Sequence[int | None] = (),
    ) -> None:
        can_analyse = system is not None
        with gr.Column(elem_id="choose"):
            self._build_scan(samples)
        with gr.Column(elem_id="attack"):
            self._build_attack()
        with gr.Column(elem_id="actions"):
            gr.HTML("<h2>3 · Compare</h2>")
            self.run = gr.Button(
                "Analyse", variant="primary", interactive=can_analyse, elem_id="analyse"
            )
            with gr.Row():
                self.stop = gr.Button(
                    "Stop", size="sm", interactive=can_analyse, elem_id="stop", min_width=60
                )
                self.clear = gr.Button("Clear", size="sm", elem_id="clear", min_width=60)
        with gr.Accordion("More settings", open=False, elem_id="more"):
            self._build_attack_details()
            self._build_defence(system.config if system else PipelineConfig(), hospitals)

    def _build_scan(self, samples: Sequence[Example]) -> None:
        gr.HTML(f"<h2>1 · Choose a scan</h2>{_render_thumbnails(samples)}")
        self.samples: list[tuple[gr.Button, Example]] = []
        if samples:
            with gr.Row(elem_id="samples"):
                for i, sample in enumerate(samples):
                    button = gr.Button(
                        sample.name,
                        size="sm",
                        min_width=60,
                        elem_id=f"sample-{i}",
                        elem_classes="sample",
                    )
                    self.samples.append((button, sample))
        self.file = gr.File(
            label="DICOM, NIfTI, zip or picture",
            file_count="multiple",  # the slices of one series
            height=84,
            interactive=True,
            elem_id="file",
        )
        self.folder = gr.UploadButton(
            "… or a folder of DICOM slices", file_count="directory", size="sm", elem_id="folder"
        )
        self.status = gr.HTML(selection.render_line(None, selection.START_HINT), elem_id="scan")
        self.insist = gr.Checkbox(
            label="Read this colour picture anyway", visible=False, elem_id="insist"
        )

    def _build_attack(self) -> None:
        d = DEFAULTS
        step = NORM_SCALES[d.norm][3]
        gr.HTML("<h2>2 · Attack it</h2>")
        self.kind = gr.Radio(KINDS, value=d.kind, label="Attack", elem_id="kind")
        self.eps = gr.Slider(
            0, MAX_EPS[d.norm], d.eps, step=step, label="ε, largest change", elem_id="eps"
        )
        self.eps_note = gr.HTML(render_eps_note(d.norm, d.eps), elem_id="eps-note")

    def _build_attack_details(self) -> None:
        d = DEFAULTS
        _, _, top, step = NORM_SCALES[d.norm]
        self.norm = gr.Radio(NORMS, value=d.norm, label="Norm of the change", elem_id="norm")
        self.alpha = gr.Slider(
            step,
            top,
            d.alpha,
            step=step,
            label="\N{GREEK SMALL LETTER ALPHA}, step size",
            elem_id="alpha",
        )
        self.steps = gr.Slider(1, MAX_STEPS, d.steps, step=1, label="Steps", elem_id="steps")
        self.aim = gr.Radio(
            AIMS, value=d.aim, label="The attacker knows and attacks", elem_id="aim"
        )
        self.truth = gr.Radio(
            TRUTHS,
            value=d.truth,
            label="Label to attack: own clean output, or the truth",
            elem_id="truth",
        )
        self.seed = gr.Number(
            d.seed, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed"
        )

    def _build_defence(self, config: PipelineConfig, numbers: Sequence[int | None]) -> None:
        """Place the defence's options, and the choice of the hospital if there are several."""
        self.score = gr.Radio(
            SCORES, value=config.detector.score, label="Detector's score", elem_id="score"
        )
        self.policy = gr.Radio(
            POLICIES,
            value=config.purifier.policy,
            label="The classifier reads purified scans",
            elem_id="policy",
        )
        self.d = gr.Slider(
            MIN_D,
            MAX_D,
            config.stability.d,
            step=0.0005,
            label="Not stable: a change of this size flips the answer",
            elem_id="d",
        )
        self.d_note = gr.HTML(render_d_note(config.stability.d), elem_id="d-note")
        first = numbers[0] if numbers else None
        self.hospital: gr.Dropdown | gr.State = gr.State(first)
        if len(numbers) > 1:
            self.hospital = gr.Dropdown(
                [(wording.name_hospital(n), n) for n in sorted(n for n in numbers if n)],
                value=first,
                label="Read as",
                filterable=False,
                elem_id="hospital",
            )

    @property
    def result_inputs(self) -> list[Any]:
        """Widgets whose change makes results stale."""
        is_seen = isinstance(self.hospital, gr.Dropdown)
        return [*self.settings, self.d, *(self.defence if is_seen else self.defence[1:])]

    @property
    def defence(self) -> list[Any]:
        """Widgets of the defence: hospital, score, policy."""
        return [self.hospital, self.score, self.policy]

    @property
    def settings(self) -> list[Any]:
        """Widgets of the attack, in the order of `read_settings`."""
        return [
            self.kind, self.norm, self.eps, self.alpha, self.steps, self.aim, self.truth, self.seed
        ]  # fmt: skip


def render_d_note(d: float | None) -> str:
    """Render the radius in grey levels, and what refusing within it costs; empty without one."""
    if d is None:
        return ""
    return render_sentence(f"{d:.4f} = {d * 255:.1f}/255. {describe_cost(d)}")


def read_settings(
    kind: str, norm: str, eps: float, alpha: float, steps: float, aim: str, truth: str, seed: float
) -> AttackSettings:
    """Convert the controls' values to settings.

    Raises:
        TypeError, ValueError: a value is missing or invalid; the message names it.
    """
    return AttackSettings(
        kind, norm, float(eps), float(alpha), int(steps), aim, truth, int(seed or 0)
    )


def rescale(norm: str) -> tuple[Any, Any, str]:
    """Return the sliders of eps and alpha in the norm's units, and the note under them."""
    eps, alpha, top, step = NORM_SCALES[norm]
    return (
        gr.update(maximum=MAX_EPS[norm], step=step, value=eps),
        gr.update(minimum=step, maximum=top, step=step, value=alpha),
        render_eps_note(norm, eps),
    )


def enable(kind: str) -> tuple[Any, Any, Any, Any]:
    """Enable norm and eps for any attack, alpha and steps for PGD alone."""
    attacks = gr.update(interactive=kind != "none")
    iterates = gr.update(interactive=kind == "pgd")
    return attacks, attacks, iterates, iterates


def render_eps_note(norm: str, eps: float) -> str:
    """Render the size of eps in grey levels."""
    return f'<p class="mf-note">{wording.describe_eps(norm, eps)}</p>'


def _render_thumbnails(samples: Sequence[Example]) -> str:
    """Render the examples as backgrounds of their buttons."""
    urls = [images.encode_scan(from_uint8(sample.levels)) for sample in samples]
    rules = [
        f"#sample-{i} {{ background-image: linear-gradient(transparent 55%, #000), url({url}); }}"
        for i, url in enumerate(urls)
    ]
    return f"<style>{''.join(rules)}</style>"
