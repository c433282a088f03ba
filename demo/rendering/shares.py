"""Shares of the log-odds: each expert's as a signed bar, and a sentence whose numbers add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from core.diagnosis import Diagnosis
from demo.rendering import wording

MAX_SHARE = 4.0  # log-odds at the end of a bar: fixed, so that two runs can be compared by eye
VIEWS = ("fine detail", "shape", "rough layout")  # of three experts, the finest first
NOTE = "Log-odds: 0 is 50 %, +2.2 is 90 %, -2.2 is 10 %. Bars end at 4."


def render_shares(named: Sequence[tuple[str, Diagnosis]], sides: Sequence[int]) -> str:
    """Render the shares of the log-odds as signed bars, a column per reading, and their sum."""
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title, _ in named)
    terms = [round_to_sum(list_terms(d)) for _, d in named]
    names = [name_expert(k, sides) for k in range(len(sides))]
    rows = "".join(
        _render_row(name, [_render_bar(t[k]) if d.can_judge else "" for t, (_, d) in
                           zip(terms, named, strict=True)])
        for k, name in enumerate([*names, "Operating point"])
    )  # fmt: skip
    sums = [_render_sum(d, add_rounded(t)) for t, (_, d) in zip(terms, named, strict=True)]
    said = "".join(
        f'<p class="mf-say"><b>{escape(title)}.</b> {escape(describe_shares(d, sides))}</p>'
        for title, d in named
        if d.can_judge
    )
    return (
        '<table class="mf-votes mf-shares"><thead><tr><td><small>against &larr; | &rarr; for a '
        f"tumour</small></td>{heads}</tr></thead><tbody>{rows}"
        f'{_render_row("Sum", sums, "mf-sum")}</tbody></table>{said}<p class="mf-note">{NOTE}</p>'
    )


def describe_shares(d: Diagnosis, sides: Sequence[int]) -> str:
    """Describe the sum of the experts' shares and the operating point, in two or three sentences.

    The rounded numbers add up to the rounded sum.
    """
    *shares, point = round_to_sum(list_terms(d))
    speakers = []
    for sign, one, several in (
        (1, "speaks for a tumour", "speak for a tumour"),
        (-1, "speaks against", "speak against"),
        (0, "adds less than 0.01", "add less than 0.01 each"),
    ):
        these = [
            f"{name_expert(k, sides)} with {share:+.2f}" if sign else name_expert(k, sides)
            for k, share in enumerate(shares)
            if (share > 0) - (share < 0) == sign
        ]
        if these:
            speakers.append(f"{wording.list_words(these)} {one if len(these) == 1 else several}")
    total, whole = add_rounded([*shares, point]), "; ".join(speakers)
    adds = f"the operating point adds {point:+.2f}"
    percent = wording.format_percent(d.tumour_probability)
    return (
        f"{whole[0].upper()}{whole[1:]}; {adds}. Together: log-odds {total:+.2f}, "
        f"a tumour probability of {percent}.{_describe_origin(d, add_rounded(shares))}"
    )


def name_expert(k: int, sides: Sequence[int]) -> str:
    """Name an expert by what it sees."""
    sees = VIEWS[k] if len(sides) == len(VIEWS) else f"{sides[k]} x {sides[k]} pixels"
    return f"expert {k + 1} ({sees})"


def list_terms(d: Diagnosis) -> list[float]:
    """Return the experts' shares and the operating point."""
    return [*d.expert_shares.tolist(), d.operating_point]


def round_to_sum(values: Sequence[float], digits: int = 2) -> list[float]:
    """Round values so that they add up to their rounded sum: those that lose most are raised."""
    scale = 10**digits
    floors = [math.floor(v * scale) for v in values]
    missing = round(sum(values) * scale) - sum(floors)
    by_loss = sorted(range(len(values)), key=lambda i: floors[i] - values[i] * scale)
    for i in by_loss[:missing]:
        floors[i] += 1
    return [n / scale for n in floors]


def add_rounded(values: Sequence[float]) -> float:
    """Return the sum of values of two decimals, to two decimals; 0 has no sign."""
    return round(sum(values), 2) + 0.0


def _describe_origin(d: Diagnosis, shares: float) -> str:
    """Describe how much comes from the tumour maps; empty where there is none."""
    if d.tumour_map is None:
        return ""
    local, overall = round_to_sum([shares - d.overall_share, d.overall_share])
    return (
        f" Of the experts' {shares:+.2f}, {local:+.2f} come from the tumour maps and "
        f"{overall:+.2f} from global features, which no map shows."
    )


def _render_row(name: str, cells: Sequence[str], kind: str = "") -> str:
    shown = "".join(f"<td>{cell or wording.NO_JUDGEMENT}</td>" for cell in cells)
    title, _, sees = name.partition(" (")
    small = f"<small>{escape(sees.rstrip(')'))}</small>" if sees else ""
    return (
        f'<tr class="{kind}"><th scope="row">{escape(title.capitalize())}{small}</th>{shown}</tr>'
    )


def _render_bar(share: float) -> str:
    """Render a bar from the middle: to the right for a tumour, to the left against."""
    length = min(abs(share) / MAX_SHARE, 1) * 50
    left = 50 if share >= 0 else 50 - length
    return (
        '<div class="mf-meter mf-half mf-signed" aria-hidden="true">'
        f'<i style="left:{left:.1f}%;width:{length:.1f}%"></i></div><span>{share:+.2f}</span>'
    )


def _render_sum(d: Diagnosis, total: float) -> str:
    if not d.can_judge:
        return ""
    return f"{total:+.2f}: {escape(wording.format_percent(d.tumour_probability))} tumour"
