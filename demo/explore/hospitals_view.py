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
from demo.explore import results_view
from demo.explore.cancellation import RequestGeneration
from demo.rendering import wording
from demo.rendering.html import render_meter, render_placeholder, render_sentence
from demo.serving.events import ON_CPU, PRIVATE

log = logging.getLogger(__name__)
KEEP_SECONDS = 3600
TITLE = "The same scan at each hospital"
WAITING_MESSAGE = "The answers of all hospitals."
FAILURE_MESSAGE = "The reading at the hospitals failed: press Analyse again."
Readings = Mapping[str, Sequence[HospitalReading]]  # by the scan's name


class HospitalsSection:
    """Table that is filled after an analysis, one hospital an event.

    Each event is the last of the queue, so that other visitors are served in between. The event
    changes the state `turn`, whose change event reads at the next hospital.
    """

    def __init__(
        self, systems: Systems, analysis: gr.State, generation: gr.State, results: gr.HTML
    ) -> None:
        self.systems = systems if len(systems) > 1 else {}
        self.table = gr.HTML("", elem_id="hospitals", visible=bool(self.systems))
        self.reader = gr.State(None, time_to_live=KEEP_SECONDS)
        self.turn = gr.State(0)
        self._inputs = [generation, analysis]
        self.event = self.turn.change(
            self._read_next, [*self._inputs, self.reader, self.turn],
            [self.reader, self.turn, self.table, results, analysis],
            trigger_mode="multiple", **PRIVATE, **ON_CPU,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """Widgets that `show` fills, in its order."""
        return [self.table, self.reader]

    def show(self, analysis: Analysis | None) -> tuple[Any, ...]:
        """Return table and reader for an analysis, which may have been read everywhere."""
        if not self.systems:
            return "", None
        if analysis is None or not analysis.elsewhere:
            return render_empty(), None
        return render_table(analysis, analysis.elsewhere, len(self.systems)), None

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
        """Start unless the analysis was stopped or replaced: Gradio runs this in any case."""
        if analysis is None or not generation.is_finished:
            return gr.skip(), gr.skip(), gr.skip()
        reader = HospitalReader(self.systems, analysis, generation.reading)
        return reader, turn + 1, render_table(analysis, {}, len(self.systems))

    def _read_next(
        self,
        generation: RequestGeneration,
        analysis: Analysis | None,
        reader: HospitalReader | None,
        turn: int,
    ) -> tuple[Any, ...]:
        nothing = (gr.skip(),) * 5
        if not _is_current(reader, generation, analysis):
            return nothing
        assert reader is not None and analysis is not None
        try:
            found = reader.read_next()
        except (RuntimeError, ValueError, MemoryError):
            log.exception("a reading at a hospital failed")
            return None, gr.skip(), _render_card(render_sentence(FAILURE_MESSAGE)), *nothing[3:]
        if not _is_current(reader, generation, analysis):
            return nothing
        table = render_table(analysis, found, len(self.systems))
        if not reader.is_done:
            return gr.skip(), turn + 1, table, *nothing[3:]
        analysis = replace(analysis, elsewhere=found)
        return None, gr.skip(), table, results_view.render(analysis), analysis


def _is_current(
    reader: HospitalReader | None, generation: RequestGeneration, analysis: Analysis | None
) -> bool:
    """Return True if the reader's analysis is still the one that the page shows."""
    return (
        reader is not None
        and reader.analysis is analysis
        and reader.generation == generation.reading
    )


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
        f'<p class="mf-note">{escape(said)}</p>',
        " mf-reading" if waiting else "",
    )


def _render_card(body: str, kind: str = "") -> str:
    return (
        f'<section class="mf-card mf-hospitals{kind}" aria-label="{TITLE}">'
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
