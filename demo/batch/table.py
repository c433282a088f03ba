"""HTML of a batch: its progress and one row per scan."""

from __future__ import annotations

from html import escape

from core.stability import describe_stability
from demo.batch.reading import Reading
from demo.batch.worklist import Scan, Worklist
from demo.rendering import wording
from demo.rendering.html import render_placeholder
from demo.rendering.tumour_map import OUTSIDE
from demo.rendering.volume_answer import describe_answer

NOT_TRIED = "the machine is too slow, or the site has another operating point"
EMPTY_MESSAGE = "Drop several files here: each becomes a row, numbered in the order of arrival."
HEADS = (
    "File", "Slice", "Detector score", "Attack suspected", "t*", "Without defence", "With defence",
    "Tumour map", "Time",
)  # fmt: skip


def render(work: Worklist, each: bool) -> str:
    """Render progress and table."""
    if not work.scans:
        return render_placeholder(EMPTY_MESSAGE)
    rows = list_entries(work, each)
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in HEADS)
    reading = next((s for s, result, _ in rows if result is None), None) if work.running else None
    body = "".join(
        _render_row(work, scan, result, scan is reading) + _render_answer(scan, answer)
        for scan, result, answer in rows
    )
    return (
        f'{_render_progress(work, each)}<div class="mf-scroll" role="region" tabindex="0" '
        f'aria-label="Table of the batch"><table class="mf-batch"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def list_entries(work: Worklist, each: bool) -> list[tuple[Scan, Reading | str | None, str]]:
    """Return the rows; a file's last one with the answer for its volume, if all slices are read."""
    rows = work.list_rows(each)
    last = {scan.file: scan for scan, _ in rows}
    answers = {file: describe_answer(of) for file, of in work.list_volumes().items()}
    return [
        (scan, result, answers.get(scan.file, "") if scan is last[scan.file] else "")
        for scan, result in rows
    ]


def summarize(work: Worklist, each: bool) -> str:
    """Return the counts of readings, refusals, alarms and differences as sentences."""
    results = [result for _, result in work.list_rows(each)]
    read = [result for result in results if isinstance(result, Reading)]
    refused = sum(isinstance(result, str) for result in results)
    return (
        f"{len(read)} of {len(results)} read, {refused} refused. "
        f"Attack suspected: {sum(r.flagged for r in read)}. "
        f"Cannot judge: {sum(not r.can_judge for r in read)}. "
        f"Not stable (!): {sum(r.stable is False for r in read)}. "
        f"Class changed by the defence: {sum(r.differs for r in read)}."
    )


def describe_site(work: Worklist) -> str:
    """Describe the adaptation as sentences: counts before and after, what it assumes."""
    site = work.site
    if site is None:
        return ""
    results = [r for _, r in work.list_rows(each=True)]
    judged = [r for r in results if isinstance(r, Reading) and r.can_judge]
    tumours = sum(r.tumour_probability >= 0.5 for r in judged)
    doubt = f" The scans may hold one class: {site.doubt}." if site.doubt else ""
    return (
        f"Adapted to this site, if {work.prevalence:.0%} of its scans have a tumour: 'tumour' "
        f"{site.tumours} of {site.scans} before, {tumours} of {len(judged)} now; attack suspected "
        f"{site.alarms} before, {sum(r.flagged for r in judged)} now.{doubt}"
    )


def _render_progress(work: Worklist, each: bool) -> str:
    total, left = len(work.list_rows(each)), len(work.list_waiting(each))
    state = "Reading" if work.running else "Done" if not left else "Ready"
    if not work.running and left and work.readings:
        state = "Stopped, readings are kept"
    running = " mf-running" if work.running else ""
    seconds = work.estimate_seconds_left(each)
    words = f"{state}: {escape(summarize(work, each))}"
    words += "" if seconds is None else f" {wording.format_time_left(seconds)}"
    words += f" {escape(adapted)}" if (adapted := describe_site(work)) else ""
    return (
        f'<div class="mf-progress{running}"><progress max="{total}" value="{total - left}" '
        f'aria-label="Scans done"></progress>'
        f'<p role="status" aria-live="polite">{words}</p></div>'
    )


def _render_row(work: Worklist, scan: Scan, result: Reading | str | None, is_next: bool) -> str:
    name = f'<small class="mf-name">{escape(work.names[scan.file - 1])}</small>'
    of = f"{scan.slice} of {scan.slices}" if scan.slices > 1 else ""
    head = f'<th scope="row">{scan.file}{name}</th><td>{of}</td>'
    if isinstance(result, str):
        return f'<tr>{head}<td colspan="7" class="mf-bad">{escape(result)}</td></tr>'
    if result is None:
        words = "is being read" if is_next else "waiting"
        return f'<tr class="mf-waiting">{head}<td colspan="7">{words}</td></tr>'
    changed = ' class="mf-differs"' if result.differs else ""
    doubts = "".join(f"<small>{escape(doubt)}</small>" for doubt in scan.doubts)
    return (
        f"<tr>{head}<td>{result.score:.3g} <small>(τ {result.tau:.3g})</small></td>"
        f"<td>{'<strong>yes</strong>' if result.flagged else 'no'}</td><td>{result.t_star}</td>"
        f"<td>{format_output(result.tumour_probability_undefended)}</td>"
        f"<td{changed}>{format_defended(result)}{_render_stability(result)}{doubts}</td>"
        f"<td>{format_area(result)}<small>{escape(result.where)}</small></td>"
        f"<td>{result.ms:.0f} ms</td></tr>"
    )


def _render_stability(result: Reading) -> str:
    """Render whether a small change flips the answer; empty where it cannot judge."""
    if not result.can_judge:
        return ""
    words = describe_stability(
        result.stable, result.stable_radius, result.stability_radius, result.purifying_turns,
        NOT_TRIED,
    )  # fmt: skip
    tone = " mf-bad" if result.stable is False else ""
    return f'<small class="mf-stability{tone}">{escape(words)}</small>'


def _render_answer(scan: Scan, answer: str) -> str:
    """Render the answer for a volume as a row of its own; empty without one."""
    if not answer:
        return ""
    head = f'<th scope="row">{scan.file}</th><td>all {scan.slices}</td>'
    return f'<tr class="mf-volume">{head}<td colspan="7">{escape(answer)}</td></tr>'


def format_area(result: Reading) -> str:
    """Return the share of the head that the tumour map marks; a dash without a map."""
    if result.tumour_area is None:
        return "\N{EN DASH}"
    if not result.tumour_regions:
        return "none"
    return wording.format_percent(result.tumour_area) if result.tumour_area else OUTSIDE


def format_defended(result: Reading) -> str:
    """Return class and percentage with defence, marked if not stable, or that it cannot judge."""
    if not result.can_judge:
        return wording.NO_JUDGEMENT
    return format_output(result.tumour_probability) + (" !" if result.stable is False else "")


def format_output(tumour_probability: float) -> str:
    """Return the more probable class and its percentage."""
    says = wording.name_class(tumour_probability)
    confidence = wording.format_confidence(tumour_probability)
    return f"{says} {confidence}".replace(" %", "\N{NO-BREAK SPACE}%")
