"""Section with the readings at each hospital of a (simulated) federation, filled row by row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from core.weights import Systems
from demo.analysis.analysis import Analysis, HospitalReading
from demo.analysis.hospitals import HospitalReader
from demo.explore.cancellation import RequestGeneration
from demo.rendering import wording
from demo.rendering.html import render_meter, render_placeholder, render_sentence
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
TITLE = "The same scan at each hospital"
WAITING_MESSAGE = "The answers of all hospitals."
FAILURE_MESSAGE = "The reading at the hospitals failed: press Analyse again."
Readings = Mapping[str, Sequence[HospitalReading]]  # by the scan's name


class HospitalsSection:
    """Table that is filled after an analysis, one hospital an event.

    Each event is the last of the queue, so that other visitors are served in between. The event
    changes the state `turn`, whose change event reads at the next hospital.
    """

    def __init__(self, systems: Systems, analysis: gr.State, generation: gr.State) -> None:
        self.systems = systems if len(systems) > 1 else {}
        self.table = gr.HTML("", elem_id="hospitals", visible=bool(self.systems))
        self.reader = gr.State(None)
        self.turn = gr.State(0)
        self._inputs = [generation, analysis]
        self.event = self.turn.change(
            self._read_next, [*self._inputs, self.reader, self.turn],
            [self.turn, self.table, analysis],
            trigger_mode="multiple", **PRIVATE, **ON_CPU,
        )  # fmt: skip

    def read_after(self, event: Any) -> None:
        """Read at every hospital after an event that has made an analysis."""
        if self.systems:
            event.then(
                self._start, [*self._inputs, self.turn], [self.reader, self.turn, self.table],
                **PRIVATE,
            )  # fmt: skip

    def _start(
        self, generation: RequestGeneration, analysis: Analysis | None, turn: int
    ) -> tuple[Any, ...]:
        if analysis is None or not analysis.readings:
            return None, turn, render_empty()
        reader = HospitalReader(self.systems, analysis)
        return (reader, generation.reading), turn + 1, render_table(analysis, {}, len(self.systems))

    def _read_next(
        self,
        generation: RequestGeneration,
        analysis: Analysis | None,
        started: tuple[HospitalReader, int] | None,
        turn: int,
    ) -> tuple[Any, ...]:
        if started is None or started[1] != generation.reading or analysis is None:
            return gr.skip(), gr.skip(), gr.skip()
        reader, _ = started
        try:
            found = reader.read_next()
        except (RuntimeError, ValueError, MemoryError):
            log.exception("a reading at a hospital failed")
            return gr.skip(), render_sentence(FAILURE_MESSAGE), gr.skip()
        if started[1] != generation.reading:
            return gr.skip(), gr.skip(), gr.skip()
        table = render_table(analysis, found, len(self.systems))
        if reader.is_done:
            return gr.skip(), table, replace(analysis, elsewhere=found)
        return turn + 1, table, gr.skip()


def render_empty() -> str:
    """Render the section before there is an analysis."""
    return _render_card(render_placeholder(WAITING_MESSAGE))


def render_table(analysis: Analysis, found: Readings, count: int) -> str:
    """Render a row per hospital and a bar per reading; the last line counts those still to read.

    Args:
        analysis: of the scans.
        found: readings so far.
        count: number of hospitals.
    """
    heads = "".join(
        f'<th scope="col">{name.capitalize()} scan</th>' for name, _ in analysis.readings
    )
    rows = [
        _render_row(at, is_chosen=at[0].hospital == analysis.hospital)
        for at in zip(*found.values(), strict=True)
    ]
    waiting = ""
    if len(rows) < count:
        waiting = f"{len(rows)} of {count} hospitals have read it. "
    said = waiting + wording.describe_hospitals(
        analysis.hospital, is_attacked=analysis.attacked is not None
    )
    return _render_card(
        "<table><thead><tr><td><small>bars: probability of tumour</small></td>"
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p class="mf-note">{escape(said)}</p>'
    )


def _render_card(body: str) -> str:
    return (
        f'<section class="mf-card mf-hospitals" aria-label="{TITLE}">'
        f"<h3>{TITLE} (simulated)</h3>{body}</section>"
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
