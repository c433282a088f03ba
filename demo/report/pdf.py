"""PDF and PNG report of one analysis: a page of results, a page on how to repeat them.

Results that do not fit the first page get a page between the two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.diagnosis import Diagnosis
from core.scan import to_uint8
from demo.analysis.analysis import Analysis
from demo.analysis.regions import THRESHOLD
from demo.rendering import images, wording
from demo.rendering.flag_reasons import describe_reason
from demo.rendering.shares import describe_shares
from demo.rendering.stability import describe
from demo.rendering.tumour_map import describe_where
from demo.rendering.verdicts import collect_verdicts
from demo.report import document
from demo.report.page import LEFT, MUTED_COLOR, RIGHT, SIDE, TOP, Page, can_fit, to_pdf, to_png

TITLE = "MedFedPure: one scan"
NO_ADVICE = "not a diagnosis and no advice"
WHOLE = "All slices of the file, not attacked."
MAX_MAP_LINE = 48  # of small text, in the column of the outputs with defence
MAX_LINE = 105  # characters
MAX_SMALL_LINE = 110  # of small text, right of the names
GAP = 0.32  # inches above the title of a part
FIGURE_TOP = TOP + 0.18
COLUMN_WIDTH = 1.8  # inches from one picture to the next
COLUMNS = ("Scan", "Perturbation", "MAE error map", "Tumour map")
LIMITS = (
    "“Without defence” is a plain classifier trained without adversarial examples; “with defence” "
    "is a mixture of experts trained on them, which by policy reads the scan itself or the "
    "purified one. The rank is the share of clean validation scans with a lower score. The outputs "
    "are those of small models trained on public scans, not a diagnosis and no advice. They are "
    "wrong for some scans, and a percentage is a model output, not how often it is right. The "
    "tumour map marks cells that the model takes for tumour in the scan that it reads, which may "
    "be wrong. The error map shows what the autoencoder could not predict, not disease. Scans are "
    "shown as the models saw them: 224 x 224 pixels, grey."
)
# draws a part of the words below a line, and returns its last line's top
Part = Callable[[Page, float, Analysis], float]


def render_pdf(a: Analysis) -> bytes:
    """Return the pages as one PDF file."""
    return to_pdf(draw_pages(a), TITLE)


def render_png(a: Analysis) -> bytes:
    """Return the first page as a PNG file."""
    return to_png(draw_pages(a, is_alone=True)[0])


def draw_pages(a: Analysis, *, is_alone: bool = False) -> list[Page]:
    """Draw the pages of an analysis that has at least its clean reading.

    Args:
        a: the analysis.
        is_alone: draw the first page alone, which then names no other.
    """
    facts = document.build_document(a)
    made_at = f"Model output, made {facts['made_at']}{wording.describe_hospital(a.hospital)}"
    top = FIGURE_TOP + len(a.readings) * (SIDE + 0.32) + 0.3
    bottoms = _measure_parts(a, top)
    fitting = sum(can_fit(top, bottom) for bottom in bottoms)
    is_full = fitting < len(PARTS)
    count = 1 if is_alone else 2 + is_full
    first, *others = [Page(TITLE, made_at, n + 1, count) for n in range(count)]
    _draw_figure(first, a)
    first.squeeze(top, bottoms[fitting - 1])
    _draw_parts(first, top, a, PARTS[:fitting])
    no_advice = f"{NO_ADVICE}; {_name_pages(count, is_full)}"
    first.draw_text(RIGHT, top + GAP, no_advice, size=8, color=MUTED_COLOR, ha="right")
    if is_full and not is_alone:
        others[0].squeeze(TOP, TOP + bottoms[-1] - bottoms[fitting - 1])
        _draw_parts(others[0], TOP - GAP, a, PARTS[fitting:])
    if not is_alone:
        _draw_provenance(others[-1], a, facts)
    return [first, *others]


def _name_pages(count: int, is_full: bool) -> str:
    """Name the pages of what the first page does not hold."""
    if count == 1:
        return f"limits{' and the rest' if is_full else ''}: in the PDF"
    return f"{'the rest: page 2; ' if is_full else ''}limits: page {count}"


def _draw_figure(page: Page, a: Analysis) -> None:
    for column, name in enumerate(_name_columns(a)):
        page.draw_text(LEFT + column * COLUMN_WIDTH, TOP, name, weight="bold")
    top = FIGURE_TOP
    for name, reading in a.readings:
        _draw_pictures(page, top, name, reading, a)
        top += SIDE + 0.32
    _draw_colour_bars(page, top + 0.02)


def _measure_parts(a: Analysis, top: float) -> list[float]:
    """Return where each part of the words would end, drawn one below the other from `top` on."""
    page, bottoms = Page("", "", 1, 1), []
    for draw in PARTS:
        top = draw(page, top, a)
        bottoms.append(top)
    return bottoms


def _draw_parts(page: Page, top: float, a: Analysis, parts: Sequence[Part]) -> None:
    for draw in parts:
        top = draw(page, top, a)


def _draw_pictures(page: Page, top: float, name: str, d: Diagnosis, a: Analysis) -> None:
    x = [LEFT + column * COLUMN_WIDTH for column in range(4)]
    page.draw_image(x[0], top, to_uint8(d.scan)[0])
    page.draw_image(x[2], top, images.colour_error(d.error_map))
    page.draw_image(x[3], top, _colour_read(d) if _has_map(a) else to_uint8(d.purified)[0])
    captions = [f"{name} scan", "", "", ""]
    if d.policy != "picture" or not _has_map(a):
        captions[3] = wording.describe_depth(d.t_star)
    if name == "attacked":
        page.draw_image(x[1], top, images.colour_change(a.scan, d.scan))
        captions[1] = "attacked - clean, amplified"
    else:
        for row, line in enumerate(_list_settings(a)):
            page.draw_text(x[1] + 0.05, top + 0.15 + 0.19 * row, line, size=8, color=MUTED_COLOR)
    for at, caption in zip(x, captions, strict=True):
        page.draw_text(at, top + SIDE + 0.11, caption, size=8, color=MUTED_COLOR)


def _name_columns(a: Analysis) -> tuple[str, ...]:
    return COLUMNS if _has_map(a) else (*COLUMNS[:3], "Purified")


def _has_map(a: Analysis) -> bool:
    return any(describe_where(d) for _, d in a.readings)


def _colour_read(d: Diagnosis) -> np.ndarray:
    """Return the scan that was read, under its tumour map where there is one and it can judge."""
    if d.tumour_map is None or not d.can_judge:
        return to_uint8(d.scan_read)[0]
    return images.colour_tumour_map(d.scan_read, d.tumour_map, THRESHOLD)


def _list_settings(a: Analysis) -> list[str]:
    s = a.settings
    if s.kind == "none":
        return ["No attack.", f"Seed {s.seed}"]
    words = wording.describe_attack(s, *a.change) if a.attacked else "The attack was stopped."
    return [*textwrap.wrap(words, 28), *textwrap.wrap(wording.describe_eps(s.norm, s.eps), 28),
            f"Seed {s.seed}"]  # fmt: skip


def _draw_colour_bars(page: Page, top: float) -> None:
    change = images.MAX_CHANGE_LEVELS
    scales = (
        (1, images.apply_diverging(np.linspace(-1, 1, 64)), f"-{change}", f"+{change}"),
        (2, images.apply_cividis(np.linspace(0, 1, 64)), "0", f"≥ {images.MAX_ERROR * 255:.0f}"),
    )
    for column, colours, low, high in scales:
        x = LEFT + column * COLUMN_WIDTH
        page.draw_image(x, top, colours[None], height=0.08)
        page.draw_text(x, top + 0.18, low, size=7, color=MUTED_COLOR)
        page.draw_text(
            x + SIDE, top + 0.18, f"{high} grey levels", size=7, color=MUTED_COLOR, ha="right"
        )


def _draw_outputs(page: Page, top: float, a: Analysis) -> float:
    top += GAP
    page.draw_text(LEFT, top, "Final outputs of the models", size=11, weight="bold")
    x = (LEFT, LEFT + 1.5, LEFT + 4.3)
    top += 0.26
    page.draw_text(x[1], top, "Without defence", weight="bold")
    page.draw_text(x[2], top, "With defence", weight="bold")
    for name, d in a.readings:
        top += 0.26
        page.draw_text(x[0], top, f"{name.capitalize()} scan")
        outputs = (d.tumour_probability_undefended, d.tumour_probability)
        for at, tumour in zip(x[1:], outputs, strict=True):
            if at == x[2] and not d.can_judge:
                page.draw_text(at, top, wording.NO_JUDGEMENT)
                continue
            page.draw_text(
                at, top, f"{wording.name_class(tumour)}, {wording.format_confidence(tumour)}"
            )
            page.draw_meter(at + 1.4, top, 1.1, tumour)
        if d.can_judge:
            top += 0.17
            page.draw_text(x[2], top, describe(d), size=7.5, color=MUTED_COLOR)
        where = describe_where(d)
        for n, line in enumerate(textwrap.wrap(f"Map: {where}" if where else "", MAX_MAP_LINE)):
            top += 0.135 if n else 0.17
            page.draw_text(x[2], top, line, size=7.5, color=MUTED_COLOR)
    return top


def _draw_verdicts(page: Page, top: float, a: Analysis) -> float:
    whole = [("note", f"{WHOLE} {a.volume_answer}")] if a.volume_answer else []
    for tone, words in [*collect_verdicts(a), *whole]:
        mark = {"good": "+", "bad": "!", "note": "-"}[tone]
        for line in textwrap.wrap(f"{mark}  {words}", MAX_LINE, subsequent_indent="   "):
            top += 0.22
            page.draw_text(LEFT, top, line)
    return top


def _draw_detector(page: Page, top: float, a: Analysis) -> float:
    top += GAP
    page.draw_text(LEFT, top, "Attack detector", size=11, weight="bold")
    for name, d in a.readings:
        top += 0.24
        suspected = "attack suspected" if d.flagged else "not suspected"
        _, right = wording.describe_detection(name == "attacked" and a.change[1] > 0, d.flagged)
        page.draw_text(LEFT, top, f"{name.capitalize()} scan")
        page.draw_text(
            LEFT + 1.5,
            top,
            f"{suspected} ({right}); score “{d.score_name}” {d.score:.3g}, threshold τ "
            f"{d.tau:.3g}; rank {wording.format_percent(d.confidence)}",
        )
        top += 0.17
        page.draw_text(LEFT + 1.5, top, describe_reason(d), size=7.5, color=MUTED_COLOR)
    return top


def _draw_mixture(page: Page, top: float, a: Analysis) -> float:
    top += GAP
    page.draw_text(
        LEFT, top, "Experts of the mixture: shares of the output", size=11, weight="bold"
    )
    for name, d in a.readings:
        top += 0.24
        page.draw_text(LEFT, top, f"{name.capitalize()} scan")
        said = describe_shares(d, a.sides) if d.can_judge else wording.NO_JUDGEMENT
        for n, line in enumerate(textwrap.wrap(said, MAX_SMALL_LINE)):
            top += 0.15 if n else 0.0
            page.draw_text(LEFT + 1.2, top, line, size=7.5, color=MUTED_COLOR)
    return top


PARTS: tuple[Part, ...] = (_draw_outputs, _draw_verdicts, _draw_detector, _draw_mixture)


def _draw_provenance(page: Page, a: Analysis, facts: dict[str, Any]) -> None:
    page.draw_text(LEFT, TOP, "Limits", size=11, weight="bold")
    top = page.draw_paragraph(LEFT, TOP + 0.22, LIMITS) + 0.1
    top = page.draw_table(top, "Settings of the attack", a.settings.to_dict())
    scans = {"clean scan": facts["scan"]["sha256"]}
    if a.attacked_scan is not None:
        scans["attacked scan"] = facts["attack"]["sha256"]
    top = page.draw_table(top, f"Scans ({document.HASH_NOTE})", scans)
    top = page.draw_table(top, "Weights (sha256)", facts["weights_sha256"] or document.NO_WEIGHTS)
    top = page.draw_table(top, "Versions", facts["versions"])
    top = page.draw_table(
        top, "How to repeat it (the pictures are in the JSON report)", facts["repeat"]
    )
    times = {f"{name} scan": _list_times(d) for name, d in a.readings}
    if a.attack_ms:
        times["attack"] = f"{a.attack_ms:.0f} ms"
    page.draw_table(top, "Timings", times)


def _list_times(d: Diagnosis) -> str:
    return ", ".join(f"{name} {ms:.0f} ms" for name, ms in d.timings_ms.items())
