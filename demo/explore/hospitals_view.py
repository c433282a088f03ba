"""Table of the readings at each hospital of a (simulated) federation, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from demo.rendering import wording
from demo.rendering.html import render_meter

if TYPE_CHECKING:
    from demo.analysis.analysis import Analysis
    from demo.analysis.hospitals import HospitalReading

TITLE = "The same scan at each hospital"


def render_card(a: Analysis) -> str:
    """Render a row per hospital and a bar per reading; empty without hospitals."""
    if not a.elsewhere:
        return ""
    heads = "".join(f'<th scope="col">{name.capitalize()} scan</th>' for name in a.elsewhere)
    rows = "".join(
        _render_row(at, is_chosen=at[0].hospital == a.hospital)
        for at in zip(*a.elsewhere.values(), strict=True)
    )
    said = wording.describe_hospitals(a.hospital, is_attacked="attacked" in a.elsewhere)
    return (
        f'<section class="mf-card mf-hospitals" aria-label="{TITLE}"><h3>{TITLE} (simulated)</h3>'
        "<table><thead><tr><td><small>bars: probability of tumour</small></td>"
        f'{heads}</tr></thead><tbody>{rows}</tbody></table><p class="mf-note">{escape(said)}</p>'
        "</section>"
    )


def _render_row(readings: Sequence[HospitalReading], *, is_chosen: bool) -> str:
    kind, said = "", ""
    if is_chosen:
        kind, said = ' class="mf-chosen"', '<span class="mf-sr">, the one chosen</span>'
    cells = "".join(map(_render_cell, readings))
    return f'<tr{kind}><th scope="row">Hospital {readings[0].hospital}{said}</th>{cells}</tr>'


def _render_cell(at: HospitalReading) -> str:
    mark = ""
    if at.flagged:
        said = '<span class="mf-sr">, attack suspected</span>'
        mark = f'<em title="attack suspected"><span aria-hidden="true">!</span>{said}</em>'
    if not at.can_judge:
        return f"<td>{wording.NO_JUDGEMENT}{mark}</td>"
    return (
        f"<td>{render_meter(at.tumour_probability)}"
        f"<span>{escape(wording.format_percent(at.tumour_probability))}</span>{mark}</td>"
    )
