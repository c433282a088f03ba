"""HTML of the lesson's results, one function per step."""

from __future__ import annotations

import torch.nn.functional as F

from core.diagnosis import Diagnosis
from core.scan import to_uint8
from demo.analysis.regions import THRESHOLD
from demo.learn.lesson import MAX_LEVELS, STEPS, Lesson, Purification
from demo.learn.pointing import render_pointing
from demo.rendering import explanation, images, wording
from demo.rendering.html import (
    render_figure,
    render_output,
    render_picture,
    render_sentence,
    render_strip,
)
from demo.rendering.shares import render_shares
from demo.rendering.trajectory import render_trajectory
from demo.rendering.tumour_map import describe_where

PATCH = 10  # side of the square whose grey values are written out, in pixels
BLACK_TEXT_LEVEL = 118  # grey level from which black text has the better contrast (>= 4.5)


def render_scan(lesson: Lesson, sides: tuple[int, ...]) -> str:
    """Step 1: render the scan, its numbers, and each expert's input."""
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
            f'<td style="background:rgb({v},{v},{v});'
            f'color:{"#000" if v >= BLACK_TEXT_LEVEL else "#fff"}">{v}</td>'
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
    size = f"{scan.shape[-1]} x {scan.shape[-1]} pixels"
    shown = render_picture(scan, "the scan", size, box) + numbers
    for k, side in enumerate(sides, start=1):
        small = F.avg_pool2d(scan[None], scan.shape[-1] // side)[0]
        shown += render_picture(small, f"expert {k} sees", f"{side} x {side} pixels")
    shown_output = render_output("The plain classifier", d.tumour_probability_undefended)
    drawn = f"The scan was drawn with{'' if lesson.tumour else 'out'} a tumour."
    right = wording.name_class(d.tumour_probability_undefended) == wording.CLASSES[lesson.tumour]
    verdict = f"{drawn} {'The classifier is right.' if right else 'The classifier is wrong.'}"
    return render_strip(shown) + shown_output + render_sentence(verdict)


def render_attack_step(lesson: Lesson, index: int) -> str:
    """Step 2: render the attack after `index` steps, as pictures and curves."""
    if not lesson.steps:
        return ""
    shown = render_trajectory(
        lesson.scan, lesson.steps, index, STEPS, "the plain classifier", MAX_LEVELS
    )
    is_complete = index >= STEPS and lesson.is_attacked
    return shown + render_sentence(_describe_attack(lesson) if is_complete else "")


def _describe_attack(lesson: Lesson) -> str:
    ends = (lesson.steps[0], lesson.steps[-1])
    before, after = (wording.name_class(float(step.probabilities[0, 1])) for step in ends)
    if lesson.clean is not None:
        before = wording.name_class(lesson.clean.tumour_probability_undefended)
    if before == after:
        return f"The attack failed: still “{after}”."
    return f"The attack succeeded: “{before}” became “{after}”."


def render_detection(lesson: Lesson) -> str:
    """Step 3: render error maps and scores of both scans."""
    a, b, scores = lesson.clean, lesson.attacked, lesson.clean_scores
    if a is None or b is None or scores is None:
        return ""
    shown = ""
    for name, d in (("original", a), ("attacked", b)):
        note = f"mean error {float(d.error_map.mean()) * 1e3:.2f} / 1000"
        shown += render_picture(d.scan, f"{name} scan", "")
        shown += render_figure(images.encode_error(d.error_map), f"{name}: error map", note)
    chart = explanation.render_scores([("original", a), ("attacked", b)], scores)
    return (
        f"{render_strip(shown)}<h3>The detector's score, among those of clean validation scans</h3>"
        f'<div class="mf-curves">{chart}</div>{render_sentence(_describe_detection(a, b))}'
    )


def render_purification(lesson: Lesson, p: Purification) -> str:
    """Step 4: render the noised and the purified scan and the outputs on the latter."""
    shown = render_picture(lesson.x_adv, "attacked", "")
    shown += render_picture(p.noised, "noised", f"to t* = {p.t_star}")
    shown += render_picture(p.purified, "purified", "noise and attack removed")
    shown += render_picture(lesson.scan, "original", "for comparison")
    own = ""
    if lesson.attacked is not None:
        own = f"Explore shows pictures purified at t* = {lesson.attacked.t_star}."
    outputs = render_output("The plain classifier on the purified scan", p.plain)
    outputs += render_output("The mixture on the purified scan", p.mixture)
    return f"{render_strip(shown)}{outputs}{render_sentence(own)}"


def render_mixture(lesson: Lesson, sides: tuple[int, ...]) -> str:
    """Step 5: render votes and shares on the attacked scan, then all four outputs."""
    a, b = lesson.clean, lesson.attacked
    if a is None or b is None:
        return ""
    final = (
        render_output("Without defence, original", a.tumour_probability_undefended)
        + render_output("Without defence, attacked", b.tumour_probability_undefended)
        + render_output("With defence, original", a.tumour_probability)
        + render_output("With defence, attacked", b.tumour_probability)
    )
    before = wording.name_class(a.tumour_probability)
    after = wording.name_class(b.tumour_probability)
    _, outcome = wording.describe_defence_outcome(before, after, "unknown", "plain")
    return (
        f'<div class="mf-decision mf-two"><div class="mf-card">'
        f"<h3>Votes of the experts</h3>{explanation.render_votes([('Attacked', b)], sides)}</div>"
        '<div class="mf-card"><h3>Shares that add up to the output</h3>'
        f"{render_shares([('Attacked', b)], sides)}</div></div>"
        f"<h3>The four outputs (bar: tumour probability)</h3>{final}{render_sentence(outcome)}"
    )


def render_heat_map(lesson: Lesson) -> str:
    """Step 6: render Grad-CAM beside the tumour map of the clean scan, and how well each points."""
    d, heat = lesson.clean, lesson.heat_map
    if d is None or heat is None:
        return ""
    overlay = images.encode_overlay(d.scan_read, heat.share)
    shown = render_picture(d.scan_read, "scan", "input of the experts")
    raised = f"regions that raised “{wording.CLASSES[heat.label]}”"
    shown += render_figure(overlay, "Grad-CAM", raised)
    said = "The network of these weights makes no tumour map."
    if d.tumour_map is not None:
        tinted = images.encode_tumour_map(d.scan_read, d.tumour_map, THRESHOLD)
        shown += render_figure(tinted, "tumour map", "cells that it takes for tumour")
        said = f"The tumour map. {describe_where(d)}" if d.can_judge else ""
    return f"{render_strip(shown)}{render_sentence(said)}{render_pointing()}"


def _describe_detection(a: Diagnosis, b: Diagnosis) -> str:
    if b.flagged and not a.flagged:
        return "The detector is right on both: it suspects only the attacked scan."
    wrong = ["the original raised a false alarm"] * a.flagged + ["the attack was missed"] * (
        not b.flagged
    )
    return f"The detector is wrong here: {' and '.join(wrong)}."
