"""The tab Batch: many files, one table."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from core.scan import MAX_BYTES, MAX_VOLUME_BYTES
from core.site.doubts import MIN_SCANS
from core.site.operating_point import SiteError
from demo.batch import table
from demo.batch.worklist import Worklist
from demo.report.download import GeneratedFile, attach_download
from demo.serving.events import ON_CPU, PRIVATE
from demo.serving.uploads import UploadStore

KEEP_SECONDS = 3600
MB = 2**20
SLICES = [("the middle slice", False), ("each slice", True)]
NAME = "medfedpure-batch"
ADAPT_INFO = (
    f"From {MIN_SCANS} or more scans that are read and not attacked, without labels; for this "
    "session only, no scan is stored. Choose scans with and without a tumour: if they hold one "
    "class and are read as two, this cannot be seen."
)
BUSY_MESSAGE = "The batch is being read: wait until it is done, or press Stop."
NO_TABLE_MESSAGE = "There is no table yet: drop files first."


class BatchTab:
    """Tab that reads a batch one scan at a time.

    Each scan is an event of its own at the end of the queue, so that other visitors are served in
    between. The event that reads a scan changes the state `turn`, whose change event reads the next
    one (Gradio notices a change of state only from an event that was itself queued). All scans are
    read with one system: of federated weights the default hospital's.
    """

    def __init__(self, system: MedFedPure | None, problem: str, uploads: UploadStore) -> None:
        self.system, self.problem, self.uploads = system, problem, uploads
        # its time to live restarts when an event outputs it, so every event that changes it does
        self.work = gr.State(Worklist(), time_to_live=KEEP_SECONDS)
        self.turn = gr.State(0, time_to_live=KEEP_SECONDS)
        with gr.Row(elem_id="batch", equal_height=False):
            with gr.Column(elem_id="batch-controls", scale=0, min_width=300):
                self._build_controls()
            with gr.Column(elem_id="batch-main", scale=1, min_width=640):
                self.view = gr.HTML(problem or table.render(Worklist(), False))
        self._connect_events()

    def _build_controls(self) -> None:
        gr.HTML("<h2>Files</h2>")
        self.files = gr.File(
            label=f"Pictures up to {MAX_BYTES // MB} MB; DICOM, NIfTI, zip up to "
            f"{MAX_VOLUME_BYTES // MB} MB",
            file_count="multiple",
            height=110,
            interactive=True,
            elem_id="batch-files",
        )
        self.each = gr.Radio(SLICES, value=False, label="Of each volume read", elem_id="batch-each")
        gr.Checkbox(
            False, label="Show file names (on this page only)", elem_id="batch-names"
        )  # the page's own style shows and hides them
        with gr.Row(elem_id="batch-actions"):
            can_read = self.system is not None
            self.run = gr.Button(
                "Read all", variant="primary", interactive=can_read, elem_id="batch-run",
                min_width=90,
            )  # fmt: skip
            self.stop = gr.Button("Stop", elem_id="batch-stop", min_width=60)
            self.clear = gr.Button("Clear", elem_id="batch-clear", min_width=60)
        with gr.Row(elem_id="batch-downloads"):
            self.csv = gr.Button("Table (CSV)", size="sm", elem_id="batch-csv", min_width=90)
            self.pdf = gr.Button("Table (PDF)", size="sm", elem_id="batch-pdf", min_width=90)
        self.place = gr.HTML("", elem_id="batch-file")
        gr.HTML("<h2>Site</h2>")
        self.adapt = gr.Checkbox(
            False, label="Adapt to this site", info=ADAPT_INFO, interactive=can_read,
            elem_id="batch-adapt",
        )  # fmt: skip
        self.prevalence = gr.Slider(
            5, 95, 50, step=5, label="Assumed: % of these scans with a tumour",
            elem_id="batch-prevalence",
        )  # fmt: skip
        self.note = gr.HTML("", elem_id="batch-note")

    def _connect_events(self) -> None:
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        shown = [self.work, self.each]
        # raw: our decoder reads the stored files, which Gradio has checked to be uploads
        self.files.upload(
            self._receive, [self.files, *shown], [self.work, self.files, self.view],
            preprocess=False,
            **{**PRIVATE, "show_progress": "minimal", "show_progress_on": self.files},
        )  # fmt: skip
        self.each.input(table.render, shown, self.view, **at_once)
        self.run.click(self._start, [*shown, self.turn], [self.turn, self.view], **PRIVATE)
        self.turn.change(
            self._step, [*shown, self.turn], [self.work, self.turn, self.view],
            trigger_mode="multiple", **PRIVATE, **ON_CPU,
        )  # fmt: skip
        self.stop.click(_stop, shown, self.view, **at_once)
        self.clear.click(
            _clear, self.work, [self.work, self.view, self.place, self.adapt, self.note], **at_once
        )
        self.adapt.input(
            self._adapt, [*shown, self.turn, self.adapt, self.prevalence],
            [self.work, self.turn, self.view, self.adapt, self.note], **PRIVATE,
        )  # fmt: skip
        self.prevalence.change(
            _assume, [*shown, self.prevalence], [self.work, self.view], **at_once
        )
        attach_download(self.csv, _make_csv, shown, self.place)
        attach_download(self.pdf, self._make_pdf, shown, self.place)

    def _receive(
        self, stored: list[dict[str, Any]] | None, work: Worklist, each: bool
    ) -> tuple[Worklist, None, str]:
        for file in stored or ():
            work.add(str(file.get("orig_name") or ""), self.uploads.decode(file["path"]))
        return work, None, table.render(work, each)

    def _start(self, work: Worklist, each: bool, turn: int) -> tuple[int, str]:
        can_read = self.system is not None and work.start(each)
        return turn + can_read, table.render(work, each)

    def _step(self, work: Worklist, each: bool, turn: int) -> tuple[Any, Any, Any]:
        """Read one scan; `turn` stays unchanged if none is left or reading was stopped."""
        continues = self.system is not None and work.step(self.system, each)
        if work.is_cleared:
            return gr.skip(), gr.skip(), gr.skip()
        return work, turn + continues, table.render(work, each)

    def _adapt(
        self, work: Worklist, each: bool, turn: int, wanted: bool, percent: float
    ) -> tuple[Worklist, int, str, bool, str]:
        note = adapt_batch(self.system, work, wanted, percent)
        starts = not note and work.start(each)  # scans of another depth are read again
        return work, turn + starts, table.render(work, each), work.site is not None, note

    def _make_pdf(self, work: Worklist, each: bool) -> GeneratedFile | str:
        if not work.scans or self.system is None:
            return NO_TABLE_MESSAGE
        from demo.batch import pdf

        data = pdf.render_pdf(work, each, self.system.info)
        return GeneratedFile(f"{NAME}.pdf", "application/pdf", data)


def _make_csv(work: Worklist, each: bool) -> GeneratedFile | str:
    return (
        GeneratedFile(f"{NAME}.csv", "text/csv", work.to_csv(each))
        if work.scans
        else NO_TABLE_MESSAGE
    )


def _stop(work: Worklist, each: bool) -> str:
    work.stop()
    return table.render(work, each)


def adapt_batch(system: MedFedPure | None, work: Worklist, wanted: bool, percent: float) -> str:
    """Adapt the batch to its site, or undo it; return the HTML of why that is not possible."""
    if work.running or system is None:
        return _render_note(BUSY_MESSAGE)
    try:
        work.adapt(system, percent / 100) if wanted else work.restore(system)
    except SiteError as error:
        return _render_note(str(error))
    return ""


def _assume(work: Worklist, each: bool, percent: float) -> tuple[Worklist, str]:
    work.prevalence = percent / 100
    return work, table.render(work, each)


def _render_note(text: str) -> str:
    """Render why the batch is not adapted."""
    return f'<p class="mf-bad" role="status">{escape(text)}</p>'


def _clear(work: Worklist) -> tuple[Worklist, str, str, bool, str]:
    work.clear()
    return Worklist(), table.render(Worklist(), False), "", False, ""
