"""What the lesson shows after each computation, as HTML; every number comes from the lesson."""

from __future__ import annotations

from html import escape

import torch.nn.functional as F

from core.diagnosis import Diagnosis
from core.scan import to_uint8
from demo.learn.lesson import MAX_LEVELS, STEPS, Lesson, Purification
from demo.rendering import explanation, images, wording
from demo.rendering.trajectory import figure, picture, say, strip, walk

PATCH = 10  # pixels a side whose values are written out
READABLE = 118  # grey level from which black letters have the better contrast: 4.5 and more


def render_scan(lesson: Lesson, sides: tuple[int, ...]) -> str:
    """Step 1: the scan, its numbers, and the scan as each expert gets it."""
    d, scan = lesson.clean, lesson.scan
    if d is None:
        return ""
    share = 100 / scan.shape[-1]
    first = (scan.shape[-1] - PATCH) // 2
    box = (
        f'<i class="mf-frame" style="left:{first * share:.2f}%;top:{first * share:.2f}%;'
        f'width:{PATCH * share:.2f}%;height:{PATCH * share:.2f}%"></i>'
    )
    patch = to_uint8(scan)[0, first : first + PATCH, first : first + PATCH]
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td style="background:rgb({v},{v},{v});color:{"#000" if v >= READABLE else "#fff"}">'
            f"{v}</td>"
            for v in row
        )
        + "</tr>"
        for row in patch.tolist()
    )
    numbers = (
        f'<figure><table class="mf-numbers" aria-label="Grey values in the frame">{cells}</table>'
        "<figcaption>the frame, as numbers<small>0 is black, 255 is white</small></figcaption>"
        "</figure>"
    )
    shown = picture(scan, "the scan", f"{scan.shape[-1]} x {scan.shape[-1]} pixels", box) + numbers
    for k, side in enumerate(sides, start=1):
        small = F.avg_pool2d(scan[None], scan.shape[-1] // side)[0]
        shown += picture(small, f"expert {k} sees", f"{side} x {side} pixels")
    says = _says("The plain classifier", d.tumour_probability_undefended)
    drawn = f"The scan was drawn with{'' if lesson.tumour else 'out'} a tumour."
    right = wording.label(d.tumour_probability_undefended) == wording.CLASSES[lesson.tumour]
    verdict = f"{drawn} {'The classifier is right.' if right else 'The classifier is wrong.'}"
    return strip(shown) + says + say(verdict)


def render_attack_step(lesson: Lesson, index: int) -> str:
    """Step 2: the attack after `index` steps, in pictures and on its two curves."""
    if not lesson.steps:
        return ""
    shown = walk(lesson.scan, lesson.steps, index, STEPS, "the plain classifier", MAX_LEVELS)
    return shown + say(_succeeded(lesson) if index >= STEPS and lesson.is_attacked else "")


def _succeeded(lesson: Lesson) -> str:
    ends = (lesson.steps[0], lesson.steps[-1])
    before, after = (wording.label(float(step.probabilities[0, 1])) for step in ends)
    if lesson.clean is not None:
        before = wording.label(lesson.clean.tumour_probability_undefended)
    if before == after:
        return f"The attack failed: still “{after}”."
    return f"The attack succeeded: “{before}” became “{after}”."


def render_detection(lesson: Lesson) -> str:
    """Step 3: both error maps, which look alike, and both scores, which do not."""
    a, b, e = lesson.clean, lesson.attacked, lesson.evidence
    if a is None or b is None or e is None:
        return ""
    shown = ""
    for name, d in (("original", a), ("attacked", b)):
        note = f"mean error {float(d.error_map.mean()) * 1e3:.2f} / 1000"
        shown += picture(d.scan, f"{name} scan", "")
        shown += figure(images.error_url(d.error_map), f"{name}: error map", note)
    scores = explanation.scores([("original", a), ("attacked", b)], e)
    return (
        f"{strip(shown)}<h3>The detector's score, among those of clean validation scans</h3>"
        f'<div class="mf-curves">{scores}</div>{say(_detected(a, b))}'
    )


def render_purification(lesson: Lesson, p: Purification) -> str:
    """Step 4: noised, denoised, and what both classifiers make of it."""
    shown = picture(lesson.x_adv, "attacked", "")
    shown += picture(p.noised, "noised", f"to t* = {p.t_star}")
    shown += picture(p.purified, "denoised", "what the experts are given")
    shown += picture(lesson.scan, "original", "to compare")
    own = ""
    if lesson.attacked is not None:
        own = f"For this scan the system itself chose t* = {lesson.attacked.t_star}."
    return (
        f"{strip(shown)}{_says('The plain classifier on the denoised scan', p.plain)}"
        f"{_says('The mixture on the denoised scan', p.mixture)}{say(own)}"
    )


def render_mixture(lesson: Lesson) -> str:
    """Step 5: votes and maps on the attacked scan, then all four outputs."""
    a, b, e = lesson.clean, lesson.attacked, lesson.evidence
    if a is None or b is None or e is None:
        return ""
    final = (
        _says("Without defence, original", a.tumour_probability_undefended)
        + _says("Without defence, attacked", b.tumour_probability_undefended)
        + _says("With defence, original", a.tumour_probability)
        + _says("With defence, attacked", b.tumour_probability)
    )
    before, after = wording.label(a.tumour_probability), wording.label(b.tumour_probability)
    _, outcome = wording.defence_outcome(before, after, "unknown", "plain")
    return (
        f'<div class="mf-decision mf-two"><div class="mf-card">'
        f"<h3>Who voted what</h3>{explanation.votes('Attacked', b, e)}</div>"
        '<div class="mf-card mf-cams"><h3>What spoke for the output</h3>'
        f"{explanation.pictures('Grad-CAM', b, e)}"
        f'<p class="mf-note">{explanation.CAM_NOTE}</p></div></div>'
        f"<h3>The four outputs</h3>{final}{say(outcome)}"
    )


def _detected(a: Diagnosis, b: Diagnosis) -> str:
    if b.flagged and not a.flagged:
        return "The detector is right twice: it suspects the attacked scan alone."
    wrong = ["the original raised a false alarm"] * a.flagged + ["the attack was missed"] * (
        not b.flagged
    )
    return f"The detector is wrong here: {' and '.join(wrong)}."


def _says(who: str, tumour: float) -> str:
    """One output as a bar with words."""
    says, sure = wording.label(tumour), wording.percent(max(tumour, 1 - tumour))
    return (
        f'<p class="mf-output" data-says="{says}"><span>{escape(who)}</span>'
        f'<span class="mf-meter mf-half" aria-hidden="true"><i style="width:{tumour * 100:.1f}%">'
        f"</i></span><b>{says} {escape(sure)}</b></p>"
    )
