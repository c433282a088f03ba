"""Explanation of one reading as HTML: expert votes and the detector's score."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from core.diagnosis import Diagnosis
from demo.analysis.explanation import CleanScores
from demo.rendering import wording
from demo.rendering.charts import Mark, draw_histogram
from demo.rendering.html import render_meter

ROUGH_NOTE = (
    "A rough histogram: eleven rounded quantiles of the clean validation scans, not their scores."
)


def render_votes(named: Sequence[tuple[str, Diagnosis]], sides: Sequence[int]) -> str:
    """Render the experts' weights and votes, and the mixture's vote, a column per reading.

    Args:
        named: titles and readings.
        sides: of each expert's input, in pixels.
    """
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title, _ in named)
    rows = ""
    for k, side in enumerate(sides):
        cells = "".join(_render_vote(d, k) for _, d in named)
        head = f'<th scope="row">Expert {k + 1}<small>sees {side} x {side}</small></th>'
        rows += f"<tr>{head}{cells}</tr>"
    totals = "".join(f"<td>{_say(d, d.tumour_probability)}</td>" for _, d in named)
    return (
        '<table class="mf-votes"><thead><tr><td><small>bars: weight</small></td>'
        f'{heads}</tr></thead><tbody>{rows}<tr class="mf-sum"><th scope="row">Mixture</th>'
        f"{totals}</tr></tbody></table>"
    )


def render_scores(named: list[tuple[str, Diagnosis]], e: CleanScores) -> str:
    """Render the scans' scores as marks on the histogram of clean scans, and in words."""
    lines = [ROUGH_NOTE, describe_false_alarms(e.alarm_share)]
    lines += [describe_rank(name, d) for name, d in named]
    marks = [Mark(name, d.score) for name, d in named]
    chart = draw_histogram(e.values, e.shares, named[0][1].tau, marks, " ".join(lines))
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


def _render_vote(d: Diagnosis, k: int) -> str:
    """Render the weight of expert `k` as a bar, and its vote in words."""
    weight = float(d.attention[k])
    said = _say(d, float(d.expert_probabilities[k]))
    return f"<td>{render_meter(weight)}<span>{weight:.2f}</span> {said}</td>"


def _say(d: Diagnosis, tumour: float) -> str:
    if not d.can_judge:
        return wording.NO_JUDGEMENT
    says = f"{wording.name_class(tumour)} {wording.format_confidence(tumour)}"
    return f'<span class="mf-says">{escape(says)}</span>'
