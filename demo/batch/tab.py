"""The tab Batch: several files in, a table out, one scan at a time."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.pipeline import MedFedPure
from core.scan import MAX_BYTES, MAX_VOLUME_BYTES
from demo.batch import table
from demo.batch.worklist import Worklist
from demo.report.download import GeneratedFile, attach_download
from demo.serving.events import ON_CPU, PRIVATE
from demo.serving.uploads import UploadStore

KEEP_SECONDS = 3600
MB = 2**20
SLICES = [("the middle slice", False), ("each slice", True)]
NAME = "medfedpure-batch"
NOTHING = "There is nothing to hand out: no file was dropped yet."


class Batch:
    """Every scan is an event of its own, at the end of the queue: others are served in between.

    All are read with one system: of a federation's weights that is the first hospital's.

    The event that reads a scan changes `turn`, which asks for the next one (a change of state is
    only noticed of an event that was queued itself).
    """

    def __init__(self, system: MedFedPure | None, problem: str, uploads: UploadStore) -> None:
        self.system, self.problem, self.uploads = system, problem, uploads
        # its time counts from when it was last put out, and so every event that adds to it does
        self.work = gr.State(Worklist(), time_to_live=KEEP_SECONDS)
        self.turn = gr.State(0, time_to_live=KEEP_SECONDS)
        with gr.Row(elem_id="batch", equal_height=False):
            with gr.Column(elem_id="batch-controls", scale=0, min_width=300):
                self._controls()
            with gr.Column(elem_id="batch-main", scale=1, min_width=640):
                self.view = gr.HTML(problem or table.render(Worklist(), False))
        self._events()

    def _controls(self) -> None:
        gr.HTML("<h2>Files</h2>")
        self.files = gr.File(
            label=f"Pictures up to {MAX_BYTES // MB} MB; DICOM, NIfTI, zip up to "
            f"{MAX_VOLUME_BYTES // MB} MB",
            file_count="multiple",
            height=110,
            interactive=True,
            elem_id="batch-files",
        )
        self.each = gr.Radio(SLICES, value=False, label="Of a volume read", elem_id="batch-each")
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

    def _events(self) -> None:
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
        self.clear.click(_clear, self.work, [self.work, self.view, self.place], **at_once)
        attach_download(self.csv, _csv, shown, self.place)
        attach_download(self.pdf, self._pdf, shown, self.place)

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
        """The turn stays as it is where no scan is left or the visitor has stopped it."""
        goes_on = self.system is not None and work.step(self.system, each)
        if work.is_cleared:
            return gr.skip(), gr.skip(), gr.skip()
        return work, turn + goes_on, table.render(work, each)

    def _pdf(self, work: Worklist, each: bool) -> GeneratedFile | str:
        if not work.scans or self.system is None:
            return NOTHING
        from demo.batch import pdf

        data = pdf.render_pdf(work, each, self.system.info)
        return GeneratedFile(f"{NAME}.pdf", "application/pdf", data)


def _csv(work: Worklist, each: bool) -> GeneratedFile | str:
    return GeneratedFile(f"{NAME}.csv", "text/csv", work.to_csv(each)) if work.scans else NOTHING


def _stop(work: Worklist, each: bool) -> str:
    work.stop()
    return table.render(work, each)


def _clear(work: Worklist) -> tuple[Worklist, str, str]:
    work.clear()
    return Worklist(), table.render(Worklist(), False), ""
