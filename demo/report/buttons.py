"""Buttons that make a PDF or PNG report of the current analysis."""

from __future__ import annotations

import gradio as gr

from demo.analysis.analysis import Analysis
from demo.report.download import GeneratedFile, attach_download

NO_ANALYSIS_MESSAGE = "There is no analysis to report: press Analyse first."


class ReportButtons:
    """PDF and PNG buttons; the state `analysis` holds an Analysis, or None."""

    def __init__(self, analysis: gr.State) -> None:
        with gr.Row(elem_id="report"):
            pdf = gr.Button("Report (PDF)", size="sm", min_width=150, elem_id="report-pdf")
            png = gr.Button("First page (PNG)", size="sm", min_width=150, elem_id="report-png")
            place = gr.HTML("", elem_id="report-file")
        attach_download(pdf, _make_pdf, [analysis], place)
        attach_download(png, _make_png, [analysis], place)


def _make_pdf(analysis: Analysis | None) -> GeneratedFile | str:
    if analysis is None or analysis.clean is None:
        return NO_ANALYSIS_MESSAGE
    from demo.report import document, pdf

    return GeneratedFile(f"{document.NAME}.pdf", "application/pdf", pdf.render_pdf(analysis))


def _make_png(analysis: Analysis | None) -> GeneratedFile | str:
    if analysis is None or analysis.clean is None:
        return NO_ANALYSIS_MESSAGE
    from demo.report import document, pdf

    return GeneratedFile(f"{document.NAME}.png", "image/png", pdf.render_png(analysis))
