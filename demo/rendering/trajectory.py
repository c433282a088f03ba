"""An attack's trajectory as HTML: the pictures of one step, and its place on two curves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core.attacks import Step
from demo.rendering import images, wording
from demo.rendering.charts import curve
from demo.rendering.html import figure, picture, say, strip


def trajectory_view(
    scan: Tensor, steps: Sequence[Step], index: int, total: int, victim: str, top: int
) -> str:
    """The attack after `index` steps.

    Args:
        scan: the clean scan (1, H, W).
        steps: of the attack on one scan so far, the clean scan first.
        index: the step to show; clipped to those there are.
        total: how many steps the whole attack takes.
        victim: the attacked model, in words.
        top: the change in grey levels from which on colours are brightest.
    """
    index = min(max(index, 0), len(steps) - 1)
    x_adv = steps[index].x_adv[0].cpu()
    tumour = [float(s.probabilities[0, 1]) for s in steps]
    loss = [float(s.loss[0]) for s in steps]
    levels = round(float((x_adv - scan).abs().max()) * 255, 1)
    sentence = (
        f"Step {index} of {total}: no pixel differs by more than {levels:g} of 255 levels. "
        f"{victim[0].upper()}{victim[1:]} says “{wording.label(tumour[index])}” "
        f"(tumour {wording.percent(tumour[index])}); loss {loss[index]:.2f}."
    )
    pictures = picture(scan, "original", "") + picture(x_adv, f"after step {index}", "attacked")
    pictures += figure(
        images.change_url(scan, x_adv, top), "the attack alone", f"brightest from {top} levels on"
    )
    highest = max(1.0, *loss)
    charts = (
        f"<div><h3>Tumour probability</h3>{curve(tumour, index, 0, 1, _series(tumour))}</div>"
        f"<div><h3>Loss</h3>"
        f"{curve(loss, index, 0, float(f'{highest:.1f}'), _series(loss))}</div>"
    )
    return f'{say(sentence)}{strip(pictures)}<div class="mf-curves">{charts}</div>'


def _series(values: Sequence[float]) -> str:
    return "By step: " + ", ".join(f"{value:.2f}" for value in values)
