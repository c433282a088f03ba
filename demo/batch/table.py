"""A batch as HTML: how far it is, and one row for each scan."""

from __future__ import annotations

from html import escape

from demo.batch.worklist import Reading, Scan, Worklist
from demo.rendering import wording

EMPTY = "Drop several files: each becomes a row, numbered in the order of arrival."
HEADS = (
    "File", "Slice", "Detector score", "Attack suspected", "t*", "Without defence", "With defence",
    "Time",
)  # fmt: skip


def render(work: Worklist, each: bool) -> str:
    """Progress and table."""
    if not work.scans:
        return f'<div class="mf-empty"><p>{EMPTY}</p></div>'
    rows = work.rows(each)
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in HEADS)
    reading = next((s for s, result in rows if result is None), None) if work.running else None
    body = "".join(_row(work, scan, result, scan is reading) for scan, result in rows)
    return (
        f'{_progress(work, each)}<div class="mf-scroll" role="region" tabindex="0" '
        f'aria-label="Table of the batch"><table class="mf-batch"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def summary(work: Worklist, each: bool) -> str:
    """How many of what, in words."""
    results = [result for _, result in work.rows(each)]
    read = [result for result in results if isinstance(result, Reading)]
    refused = sum(isinstance(result, str) for result in results)
    return (
        f"{len(read)} of {len(results)} read, {refused} refused. "
        f"Attack suspected: {sum(r.flagged for r in read)}. "
        f"Cannot judge: {sum(not r.can_judge for r in read)}. "
        f"Outputs differ without and with defence: {sum(r.differs for r in read)}."
    )


def _progress(work: Worklist, each: bool) -> str:
    total, left = len(work.rows(each)), len(work.waiting(each))
    state = "Reading" if work.running else "Done" if not left else "Ready"
    if not work.running and left and work.readings:
        state = "Stopped, what was read is kept"
    running = " mf-running" if work.running else ""
    return (
        f'<div class="mf-progress{running}"><progress max="{total}" value="{total - left}" '
        f'aria-label="Scans done"></progress>'
        f'<p role="status" aria-live="polite">{state}: {escape(summary(work, each))}</p></div>'
    )


def _row(work: Worklist, scan: Scan, result: Reading | str | None, is_next: bool) -> str:
    name = f'<small class="mf-name">{escape(work.names[scan.file - 1])}</small>'
    of = f"{scan.slice} of {scan.slices}" if scan.slices > 1 else ""
    head = f'<th scope="row">{scan.file}{name}</th><td>{of}</td>'
    if isinstance(result, str):
        return f'<tr>{head}<td colspan="6" class="mf-bad">{escape(result)}</td></tr>'
    if result is None:
        words = "is being read" if is_next else "waiting"
        return f'<tr class="mf-waiting">{head}<td colspan="6">{words}</td></tr>'
    turned = ' class="mf-differs"' if result.differs else ""
    return (
        f"<tr>{head}<td>{result.score:.3g} <small>(τ {result.tau:.3g})</small></td>"
        f"<td>{'<strong>yes</strong>' if result.flagged else 'no'}</td><td>{result.t_star}</td>"
        f"<td>{output(result.tumour_probability_undefended)}</td>"
        f"<td{turned}>{defended(result)}</td><td>{result.ms:.0f} ms</td></tr>"
    )


def defended(result: Reading) -> str:
    """What the defended system says of a scan."""
    return output(result.tumour_probability) if result.can_judge else wording.NO_JUDGEMENT


def output(tumour_probability: float) -> str:
    """The class put first and its percentage."""
    says = wording.label(tumour_probability)
    sure = tumour_probability if says == "tumour" else 1 - tumour_probability
    return f"{says} {wording.percent(sure)}".replace(" %", "\N{NO-BREAK SPACE}%")
