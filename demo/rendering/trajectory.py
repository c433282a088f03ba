"""Trajectory of an attack as HTML: the pictures of one step, and two curves over all steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core.attacks import Step
from demo.rendering import images, wording
from demo.rendering.charts import draw_curve
from demo.rendering.html import render_figure, render_picture, render_sentence, render_strip


def render_trajectory(
    scan: Tensor, steps: Sequence[Step], index: int, total: int, target: str, max_levels: int
) -> str:
    """Render the attack after `index` steps.

    Args:
        scan: the clean scan (1, H, W).
        steps: of the attack on one scan so far, the clean scan first.
        index: the step to show, clipped to the computed ones.
        total: number of steps of the whole attack.
        target: the attacked model, in words.
        max_levels: the change in grey levels from which on colours are brightest.
    """
    index = min(max(index, 0), len(steps) - 1)
    x_adv = steps[index].x_adv[0].cpu()
    tumour = [float(s.probabilities[0, 1]) for s in steps]
    loss = [float(s.loss[0]) for s in steps]
    levels = round(float((x_adv - scan).abs().max()) * 255, 1)
    sentence = (
        f"Step {index} of {total}: no pixel differs by more than {levels:g} of 255 levels. "
        f"{target[0].upper()}{target[1:]} says “{wording.name_class(tumour[index])}” "
        f"(tumour {wording.format_percent(tumour[index])}); loss {loss[index]:.2f}."
    )
    pictures = render_picture(scan, "original", "") + render_picture(
        x_adv, f"after step {index}", "attacked"
    )
    pictures += render_figure(
        images.encode_change(scan, x_adv, max_levels),
        "the attack alone",
        f"brightest from {max_levels} levels on",
    )
    highest = max(1.0, *loss)
    tumour_curve = draw_curve(tumour, index, 0, 1, _describe_series(tumour))
    loss_curve = draw_curve(loss, index, 0, float(f"{highest:.1f}"), _describe_series(loss))
    charts = (
        f"<div><h3>Tumour probability by step</h3>{tumour_curve}</div>"
        f"<div><h3>Loss by step</h3>{loss_curve}</div>"
    )
    view = render_sentence(sentence) + render_strip(pictures)
    return f'{view}<div class="mf-curves">{charts}</div>'


def _describe_series(values: Sequence[float]) -> str:
    return "By step: " + ", ".join(f"{value:.2f}" for value in values)
