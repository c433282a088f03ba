"""PDF of a batch: its table, and a page of weights and versions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from demo.batch.reading import Reading
from demo.batch.table import (
    HEADS,
    describe_site,
    format_area,
    format_defended,
    format_output,
    list_entries,
    summarize,
)
from demo.batch.worklist import Scan, Worklist
from demo.rendering import wording
from demo.report import document
from demo.report.page import LEFT, MUTED_COLOR, TOP, WARNING_COLOR, Page, to_pdf

TITLE = "MedFedPure: batch"
ROWS = 48  # per page
MAX_LINE = 125  # characters of small text, right of the numbers
COLUMNS = (
    0.0,
    0.4,
    1.1,
    2.25,
    3.4,
    3.75,
    4.9,
    6.0,
    6.75,
)  # inches from the left margin to each column


def render_pdf(work: Worklist, each: bool, info: Mapping[str, Any]) -> bytes:
    """Return the batch as one PDF file, in which files have numbers and no names."""
    return to_pdf(draw_pages(work, each, info), TITLE)


def draw_pages(work: Worklist, each: bool, info: Mapping[str, Any]) -> list[Page]:
    """Draw the table, `ROWS` rows per page, and a last page of weights and versions.

    Args:
        work: the batch.
        each: all slices of a volume, or only its middle slice.
        info: the system's `info`.
    """
    rows: list[tuple[Scan, Reading | str | None] | str] = []
    for scan, result, answer in list_entries(work, each):
        rows += [(scan, result), *textwrap.wrap(answer, MAX_LINE)]
    parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)] or [[]]
    made = f"Model output, made {datetime.now(UTC).isoformat(timespec='seconds')}"
    made += wording.describe_hospital(info.get("hospital"))
    made += "; adapted to this site (see the last page)" if work.site else ""
    count = len(parts) + 1
    pages = [Page(TITLE, made, number, count) for number in range(1, count + 1)]
    pages[0].draw_text(LEFT, TOP - 0.22, summarize(work, each))
    for page, part in zip(pages, parts, strict=False):
        for at, head in zip(COLUMNS, HEADS, strict=True):
            page.draw_text(LEFT + at, TOP + 0.05, head, size=7.5, weight="bold")
        page.draw_rule(TOP + 0.17)
        for line, row in enumerate(part):
            top = TOP + 0.28 + 0.19 * line
            if isinstance(row, str):
                page.draw_text(LEFT + COLUMNS[2], top, row, size=6.5)
            else:
                _draw_row(page, top, *row)
    seed = {"purifier's noise": 0}
    top = pages[-1].draw_paragraph(LEFT, TOP, describe_site(work)) if work.site else TOP
    top = pages[-1].draw_table(top, "Seed", seed)
    top = pages[-1].draw_table(
        top, "Weights (sha256)", document.find_weight_hashes(info) or document.NO_WEIGHTS
    )
    pages[-1].draw_table(top, "Versions", document.collect_versions())
    return pages


def _draw_row(page: Page, top: float, scan: Scan, result: Reading | str | None) -> None:
    page.draw_text(LEFT + COLUMNS[0], top, str(scan.file), size=8)
    if scan.slices > 1:
        page.draw_text(LEFT + COLUMNS[1], top, f"{scan.slice} of {scan.slices}", size=8)
    if not isinstance(result, Reading):
        words = textwrap.shorten(result or "not read", MAX_LINE, placeholder=" ...")
        page.draw_text(
            LEFT + COLUMNS[2], top, words, size=6.5, color=WARNING_COLOR if result else MUTED_COLOR
        )
        return
    cells = (
        f"{result.score:.3g} (τ {result.tau:.3g})",
        "yes" if result.flagged else "no",
        str(result.t_star),
        format_output(result.tumour_probability_undefended),
        format_defended(result),
        format_area(result),
        f"{result.ms:.0f} ms",
    )
    for at, words in zip(COLUMNS[2:], cells, strict=True):
        page.draw_text(LEFT + at, top, words, size=8)
