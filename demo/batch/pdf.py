"""A batch on paper: its table, as many pages as it needs, and what it was read with."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from demo.batch.table import HEADS, defended, output, summary
from demo.batch.worklist import Reading, Scan, Worklist
from demo.rendering import wording
from demo.report import document
from demo.report.page import LEFT, SOFT, TOP, WARN, Page, to_pdf

TITLE = "MedFedPure: a batch"
ROWS = 48  # of a page
AT = (0.0, 0.4, 1.2, 2.4, 3.65, 4.1, 5.4, 6.55)  # inches from the left margin to each column


def render_pdf(work: Worklist, each: bool, info: Mapping[str, Any]) -> bytes:
    """The whole batch as one file; files are numbers in it, never names."""
    return to_pdf(draw_pages(work, each, info), TITLE)


def draw_pages(work: Worklist, each: bool, info: Mapping[str, Any]) -> list[Page]:
    """Pages of the table, `ROWS` to a page, and a last one on weights and versions.

    Args:
        work: the batch.
        each: with each slice of a volume, or the middle one alone.
        info: the system's.
    """
    rows = work.rows(each)
    parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)] or [[]]
    made = f"Model output, made {datetime.now(UTC).isoformat(timespec='seconds')}"
    made += wording.read_as(info.get("hospital"))
    count = len(parts) + 1
    for_all = [Page(TITLE, made, number, count) for number in range(1, count + 1)]
    for_all[0].draw_text(LEFT, TOP - 0.22, summary(work, each))
    for page, part in zip(for_all, parts, strict=False):
        for at, head in zip(AT, HEADS, strict=True):
            page.draw_text(LEFT + at, TOP + 0.05, head, size=7.5, weight="bold")
        page.draw_rule(TOP + 0.17)
        for line, (scan, result) in enumerate(part):
            _row(page, TOP + 0.28 + 0.19 * line, scan, result)
    seed = {"of the purifier's noise": 0}
    top = for_all[-1].draw_table(TOP, "Seed", seed)
    top = for_all[-1].draw_table(
        top, "Weights (sha256)", document.find_weight_hashes(info) or document.UNTRAINED
    )
    for_all[-1].draw_table(top, "Versions", document.collect_versions())
    return for_all


def _row(page: Page, top: float, scan: Scan, result: Reading | str | None) -> None:
    page.draw_text(LEFT + AT[0], top, str(scan.file), size=8)
    if scan.slices > 1:
        page.draw_text(LEFT + AT[1], top, f"{scan.slice} of {scan.slices}", size=8)
    if not isinstance(result, Reading):
        words = textwrap.shorten(result or "not read", 125, placeholder=" ...")
        page.draw_text(LEFT + AT[2], top, words, size=6.5, color=WARN if result else SOFT)
        return
    cells = (
        f"{result.score:.3g} (τ {result.tau:.3g})",
        "yes" if result.flagged else "no",
        str(result.t_star),
        output(result.tumour_probability_undefended),
        defended(result),
        f"{result.ms:.0f} ms",
    )
    for at, words in zip(AT[2:], cells, strict=True):
        page.draw_text(LEFT + at, top, words, size=8)
