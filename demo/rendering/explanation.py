"""Explanation of one reading as HTML: expert votes, Grad-CAM and the detector's score."""

from __future__ import annotations

from html import escape

import numpy as np

from core.diagnosis import Diagnosis
from demo.analysis.explanation import Evidence
from demo.rendering import images, wording
from demo.rendering.charts import Mark, draw_histogram
from demo.rendering.html import render_meter

CAM_BAR = images.build_gradient(images.apply_cividis(np.linspace(0, 1, 17)))
ROUGH_NOTE = (
    "A rough histogram: eleven rounded quantiles of the clean validation scans, not their scores."
)
CAM_NOTE = "Shows what the model used, not where a disease is. Coarse: 4 to 7 cells a side."


def render_votes(title: str, d: Diagnosis, e: Evidence) -> str:
    """Render the experts' weights and votes, and the mixture's vote, as a table of bars."""
    rows = ""
    pairs = zip(d.attention.tolist(), d.expert_probabilities.tolist(), e.sides, strict=True)
    for k, (weight, tumour, side) in enumerate(pairs, start=1):
        rows += (
            f'<tr><th scope="row">Expert {k}<small>sees {side} x {side}</small></th>'
            f"<td>{render_meter(weight)}<span>{weight:.2f}</span></td>"
            f"{_render_vote(tumour) if d.can_judge else '<td>&ndash;</td>'}</tr>"
        )
    total = (
        _render_vote(d.tumour_probability) if d.can_judge else f"<td>{wording.NO_JUDGEMENT}</td>"
    )
    rows += f'<tr class="mf-sum"><th scope="row">Mixture</th><td></td>{total}'
    return (
        f'<table class="mf-votes"><thead><tr><th scope="col">{escape(title)}</th>'
        '<th scope="col">weight</th><th scope="col">says</th></tr></thead>'
        f"<tbody>{rows}</tr></tbody></table>"
    )


def render_maps(title: str, d: Diagnosis, e: Evidence) -> str:
    """Render the purified scan, and Grad-CAM of mixture and experts over it."""
    what = wording.CLASSES[e.label]
    shown = [
        (images.encode_scan(d.purified), "purified scan", "input of the experts"),
        (images.encode_overlay(d.purified, e.mixture / e.top), "mixture", f"for “{what}”"),
    ]
    for k, (cam, weight) in enumerate(zip(e.experts, d.attention.tolist(), strict=True), start=1):
        url = images.encode_overlay(d.purified, cam / e.top)
        shown.append((url, f"expert {k}", f"weight {weight:.2f}"))
    figure = "".join(
        f'<figure><img src="{url}" alt="{escape(f"{title}: {name}, {note}")}">'
        f"<figcaption>{escape(name)}<small>{escape(note)}</small></figcaption></figure>"
        for url, name, note in shown
    )
    return f'<h4>{escape(title)}</h4><div class="mf-strip">{figure}</div>'


def render_scores(named: list[tuple[str, Diagnosis]], e: Evidence) -> str:
    """Render the scans' scores as marks on the histogram of clean scans, and in words."""
    lines = [ROUGH_NOTE, describe_false_alarms(e.alarm_share)]
    lines += [describe_rank(name, d) for name, d in named]
    marks = [Mark(name, d.score) for name, d in named]
    chart = draw_histogram(e.clean_scores, e.clean_shares, named[0][1].tau, marks, " ".join(lines))
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'{chart}<ul class="mf-words">{items}</ul>'


def describe_false_alarms(share: float) -> str:
    """Describe the false-positive rate in a sentence."""
    return (
        f"Of 100 clean validation scans about {share * 100:.0f} score above the threshold: "
        "false alarms."
    )


def describe_rank(name: str, d: Diagnosis) -> str:
    """Describe the rank of a scan's score among clean scans in a sentence."""
    verdict = "attack suspected" if d.flagged else "not suspected"
    above = f"higher than about {wording.format_percent(d.confidence)} of clean scans"
    if d.confidence >= 1:
        above = "higher than any clean validation scan"
    elif d.confidence < 0.01:
        above = "lower than nearly all clean scans"
    return f"{name.capitalize()}: {d.score:.1f}, {above}; {verdict}."


def _render_vote(tumour: float) -> str:
    says = f"{wording.name_class(tumour)} {wording.format_confidence(tumour)}"
    bar = render_meter(tumour, kind="mf-half")
    return f'<td>{bar}<span class="mf-says">{escape(says)}</span></td>'


def render_colour_bar() -> str:
    """Render the colour bar of all maps of one scan."""
    return (
        f'<div class="mf-bar" style="background:{CAM_BAR}"></div><div class="mf-ticks">'
        "<span>did not raise it</span><span>most, in this scan</span></div>"
        f'<p class="mf-note">{CAM_NOTE}</p>'
    )
