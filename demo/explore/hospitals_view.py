"""The same scan at each hospital of a federation (simulated): read, and shown as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.memoize import shared_computation
from demo.rendering import wording

if TYPE_CHECKING:
    from core.weights import Systems
    from demo.analysis.analysis import Analysis

TITLE = "The same scan at each hospital"


@dataclass(frozen=True)
class AtHospital:
    """What one hospital's own system says of a scan."""

    hospital: int
    can_judge: bool
    tumour_probability: float
    flagged: bool
    score: float
    tau: float
    t_star: int


@torch.no_grad()
def read_at_each(systems: Systems, scan: Tensor, seed: int) -> tuple[AtHospital, ...]:
    """Reads a scan (1, 224, 224) at every hospital, each as its system's own `read` does.

    What the hospitals share computes each of its inputs once; each has gradients of its own
    classifiers, so that ten take about six times as long as one.
    """
    with shared_computation():
        readings = {n: system.read(scan, seed) for n, system in systems.items() if n is not None}
    return tuple(
        AtHospital(n, d.can_judge, d.tumour_probability, d.flagged, d.score, d.tau, d.t_star)
        for n, d in readings.items()
    )


def card(a: Analysis) -> str:
    """A row a hospital, a bar a reading; empty as long as only one hospital has read."""
    if not a.elsewhere:
        return ""
    heads = "".join(f'<th scope="col">{name.capitalize()} scan</th>' for name in a.elsewhere)
    rows = "".join(
        _row(at, is_chosen=at[0].hospital == a.hospital)
        for at in zip(*a.elsewhere.values(), strict=True)
    )
    said = wording.hospitals_note(a.hospital, is_attacked="attacked" in a.elsewhere)
    return (
        f'<section class="mf-card mf-hospitals" aria-label="{TITLE}"><h3>{TITLE} (simulated)</h3>'
        "<table><thead><tr><td><small>bars: probability of tumour</small></td>"
        f'{heads}</tr></thead><tbody>{rows}</tbody></table><p class="mf-note">{escape(said)}</p>'
        "</section>"
    )


def _row(readings: Sequence[AtHospital], *, is_chosen: bool) -> str:
    kind, said = "", ""
    if is_chosen:
        kind, said = ' class="mf-chosen"', '<span class="mf-sr">, the one chosen</span>'
    cells = "".join(map(_cell, readings))
    return f'<tr{kind}><th scope="row">Hospital {readings[0].hospital}{said}</th>{cells}</tr>'


def _cell(at: AtHospital) -> str:
    mark = ""
    if at.flagged:
        said = '<span class="mf-sr">, attack suspected</span>'
        mark = f'<em title="attack suspected"><span aria-hidden="true">!</span>{said}</em>'
    if not at.can_judge:
        return f"<td>{wording.NO_JUDGEMENT}{mark}</td>"
    share = min(max(at.tumour_probability, 0), 1) * 100
    return (
        f'<td><div class="mf-meter" aria-hidden="true"><i style="width:{share:.1f}%"></i></div>'
        f"<span>{escape(wording.percent(at.tumour_probability))}</span>{mark}</td>"
    )
