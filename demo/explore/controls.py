"""Left column: the scan's drop area and examples, the attack's controls, the buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from core.scan import from_uint8
from demo.analysis.attack import MAX_EPS, MAX_STEPS, AttackSettings
from demo.examples import Example
from demo.explore import selection
from demo.rendering import images, wording

DEFAULTS = AttackSettings()
# eps, alpha, largest alpha and the sliders' step, in each norm's own units
NORM_SCALES = {"linf": (0.015, 0.003, 0.02, 0.001), "l2": (2.0, 0.5, 4.0, 0.1)}
KINDS = [("PGD", "pgd"), ("FGSM", "fgsm"), ("none", "none")]
NORMS = [("L∞", "linf"), ("L2", "l2")]
AIMS = [("plain classifier", "plain"), ("mixture", "mixture"), ("the defence", "defence")]
TRUTHS = [("own output", "unknown"), ("no tumour", "no tumour"), ("tumour", "tumour")]
MAX_SEED = 2**31 - 1


class Controls:
    """Widgets of the column, as attributes to which events are connected."""

    def __init__(
        self, samples: Sequence[Example], can_analyse: bool, hospitals: Sequence[int | None] = ()
    ) -> None:
        self._build_scan(samples)
        self._build_hospital(hospitals)
        self._build_attack()
        with gr.Row(elem_id="actions"):
            self.run = gr.Button(
                "Analyse",
                variant="primary",
                interactive=can_analyse,
                elem_id="analyse",
                min_width=90,
            )
            self.stop = gr.Button("Stop", interactive=can_analyse, elem_id="stop", min_width=60)
            self.clear = gr.Button("Clear", elem_id="clear", min_width=60)

    def _build_scan(self, samples: Sequence[Example]) -> None:
        gr.HTML("<h2>1 · Scan</h2>")
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
        self.samples: list[tuple[gr.Button, Example]] = []
        if samples:
            gr.HTML(f"<h3>Synthetic examples</h3>{_render_thumbnails(samples)}")
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

    def _build_hospital(self, numbers: Sequence[int | None]) -> None:
        """Place the choice of the hospital whose system reads; hidden if there is only one."""
        first = numbers[0] if numbers else None
        self.hospital: gr.Dropdown | gr.State = gr.State(first)
        if len(numbers) > 1:
            self.hospital = gr.Dropdown(
                [(wording.name_hospital(n), n) for n in numbers if n is not None],
                value=first,
                label="Read as",
                filterable=False,
                elem_id="hospital",
            )

    def _build_attack(self) -> None:
        d = DEFAULTS
        _, _, top, step = NORM_SCALES[d.norm]
        gr.HTML("<h2>2 · Attack</h2>")
        with gr.Row(elem_classes="pair"):
            self.kind = gr.Radio(KINDS, value=d.kind, label="Kind", elem_id="kind", min_width=150)
            self.norm = gr.Radio(NORMS, value=d.norm, label="Norm", elem_id="norm", min_width=80)
        self.eps = gr.Slider(0, MAX_EPS[d.norm], d.eps, step=step, label="ε, size", elem_id="eps")
        self.eps_note = gr.HTML(render_eps_note(d.norm, d.eps), elem_id="eps-note")
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

    @property
    def result_inputs(self) -> list[Any]:
        """Widgets whose change makes results stale."""
        is_seen = isinstance(self.hospital, gr.Dropdown)
        return [*self.settings, self.hospital] if is_seen else self.settings

    @property
    def settings(self) -> list[Any]:
        """Widgets of the attack, in the order of `read_settings`."""
        return [
            self.kind, self.norm, self.eps, self.alpha, self.steps, self.aim, self.truth, self.seed
        ]  # fmt: skip


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
    rules = [f"#sample-{i} {{ background-image: url({url}); }}" for i, url in enumerate(urls)]
    return f"<style>{''.join(rules)}</style>"
