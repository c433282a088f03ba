"""Reasons why a scan was flagged or not: bars of the measurements, a sentence, a map."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from core.diagnosis import Diagnosis
from demo.analysis.reasons import Reason, find_reasons
from demo.rendering.html import render_meter, render_sentence

MEASUREMENTS = {
    "residual_mean": "fine grain that the autoencoder did not predict",
    "residual_top": "strong grain that the autoencoder did not predict",
    "quiet": "fine grain in the most uniform areas",
    "noise_estimate": "noise the diffusion model sees",
    "noise_quiet": "noise the diffusion model sees in uniform areas",
    "plain_match": "a pattern along the plain classifier's gradient",
    "trained_match": "a pattern along the trained mixture's gradient",
    "residual_net": "traces that a network trained on attacks finds",
}
PAPER = "the paper's score has one measurement, the mean squared error of the autoencoder"
NOTHING = "no measurement is above that of an average clean scan"
# Fixed scales, so that two runs can be compared by eye.
MAX_BAR = 5.0  # points of the score
MAX_EVIDENCE = 5.0
EVIDENCE_STEP = 1 / 1024  # unit of the map sent, in points


def render_flag_reasons(named_readings: Sequence[tuple[str, Diagnosis]]) -> str:
    """Render what raised and what lowered the score of each reading; empty without one."""
    return "".join(
        f'<section class="mf-reasons"><h4>{escape(name.capitalize())} scan</h4>'
        f"{render_sentence(describe_reason(d))}{_render_bars(name, d)}</section>"
        for name, d in named_readings
    )


def describe_reason(d: Diagnosis) -> str:
    """Describe the main reason why a scan was flagged, or the nearest one why not."""
    verdict = "Flagged" if d.flagged else "Not flagged"
    if d.score_name == "paper":
        return f"{verdict}: {PAPER}."
    reason = find_reasons(d).strongest
    if reason is None:
        return f"{verdict}: {NOTHING}."
    words = MEASUREMENTS[reason.name]
    if d.flagged:
        return f"Flagged most of all because of {words}: {reason.share * 100:.0f} % of the rise."
    missing = f"{d.tau - d.score:.2f} points short"
    return f"Not flagged, {missing}; nearest reason: {words} ({reason.points:+.1f})."


def describe_evidence_map(d: Diagnosis) -> str:
    """Describe the map of `encode_evidence_layer`, or why there is none, in a sentence."""
    if d.score_name == "paper":
        return f"No map: {PAPER}, which the error map shows."
    reason = find_reasons(d).strongest
    if reason is None:
        return f"No map: {NOTHING}."
    return f"Strongest reason: {MEASUREMENTS[reason.name]}."


def encode_evidence_layer(d: Diagnosis) -> dict[str, Any] | None:
    """Encode the map of the strongest reason as a layer of the viewer; None without one.

    The unit is weight times deviations of the patch from usual; the scales of different
    measurements differ, and patches at or below usual are 0. Colours are brightest from
    `MAX_EVIDENCE` on.
    """
    found = find_reasons(d).map
    if found is None or d.score_name == "paper":
        return None
    steps = np.rint(found.numpy() / EVIDENCE_STEP).clip(0, 2**16 - 1).astype("<u2")
    data = base64.b64encode(steps.tobytes()).decode("ascii")
    return {"type": "u2", "shape": list(steps.shape), "scale": EVIDENCE_STEP, "data": data}


def _render_bars(name: str, d: Diagnosis) -> str:
    """Render one row a measurement; bars to the left lower the score, to the right raise it."""
    if d.score_name == "paper":
        return ""
    reasons = find_reasons(d)
    ordered = sorted((*reasons.raised, *reasons.lowered), key=lambda reason: -abs(reason.points))
    rows = "".join(map(_render_row, ordered))
    rise = d.scores["fused"] - reasons.usual
    note = (
        f"An average clean scan scores {reasons.usual:.2f}; these add {rise:+.2f}: {d.score:.2f}. "
        f"Flagged above {d.tau:.2f}. Shares are of all that speaks for an attack."
    )
    return (
        f'<table aria-label="What raised and lowered the score of the {escape(name)} scan">'
        '<thead><tr><th scope="col">measurement</th><th scope="col">against</th>'
        '<th scope="col">for an attack</th><th scope="col">points, share</th></tr></thead>'
        f'<tbody>{rows}</tbody></table><p class="mf-note">{note}</p>'
    )


def _render_row(reason: Reason) -> str:
    is_raised = reason.points > 0
    length = abs(reason.points) / MAX_BAR
    tone = "bad" if is_raised else "good"
    bar, empty = render_meter(length, kind=f"mf-{tone}"), render_meter(0)
    cells = (empty, bar) if is_raised else (bar, empty)
    share = f" <small>{reason.share * 100:.0f} %</small>" if is_raised else ""
    return (
        f'<tr><th scope="row">{escape(MEASUREMENTS[reason.name])}</th>'
        f'<td>{cells[0]}</td><td>{cells[1]}</td><td><b class="mf-{tone}">{reason.points:+.2f}</b> '
        f"{share}</td></tr>"
    )
