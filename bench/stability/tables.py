"""Tables of the command `stability`: what refusing costs, and what it saves."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench import markdown as md
from bench.stability.outcomes import CLEAN, NOISES, NONE, find_worst, list_worst, unpack
from bench.summaries import from_bits, group_rows
from core.stability import RADII

COLUMNS = {
    "clean_refused": "clean: refused, %",
    "clean_silent": "clean: silently wrong, %",
    "worst_silent": "attacked: silently wrong, %",
    "worst_refused": "attacked: refused, %",
    "worst_right": "attacked: answered and right, %",
    "answered_right": "right of those answered, %",
}


def render_outcomes(results: md.Results) -> str:
    """Renders, for each radius, what is refused and what is silently wrong."""
    parts = []
    for result in md.results_of(results, "stability", md.PROTOCOLS).values():
        rows = result["rows"]
        lines = [_render(d, shares) for d, shares in rows["outcomes"]["by_radius"].items()]
        head = ["refused within", *COLUMNS.values(), f"{' / '.join(NOISES)}: refused, %"]
        parts.append(f"{md.table(head, lines)}\n\n{_describe(rows)} {md.source(result)}")
    return "\n\n".join(parts)


def render_rejection(results: md.Results) -> str:
    """Renders robustness with rejection, for each radius."""
    parts = []
    for result in md.results_of(results, "stability", md.PROTOCOLS).values():
        by_radius = result["rows"]["outcomes"]["by_radius"]
        names = [name for name in by_radius[f"{NONE:g}"] if name.startswith("robust")]
        if not names:
            continue
        lines = [
            [d if float(d) else "nothing refused", *(md.share(shares[name]) for name in names)]
            for d, shares in by_radius.items()
        ]
        heads = [f"{name.removeprefix('robust, ')}, %" for name in names]
        parts.append(md.table(["refused within", *heads], lines))
    return "\n\n".join(parts) or "Not measured yet."


def _render(d: str, shares: dict[str, Any]) -> list[str]:
    cells = [md.share(shares[name]) for name in COLUMNS]
    noise = " / ".join(md.percent(shares[f"{name} refused"]["value"]) for name in NOISES)
    return [d if float(d) else "nothing refused", *cells, noise]


def _describe(rows: dict[str, Any]) -> str:
    labels = from_bits(rows["scans"]["labels"])
    checks = [
        f"of {rows['missed']['n']} clean scans other attacks flip {found['flipped']} within {d}, "
        f"{found['missed']} of which the search missed"
        for d, found in rows["missed"]["by_radius"].items()
    ]
    attacked = max(row["attacked"] for row in rows.values() if "attacked" in row)
    return (
        f"{len(labels)} scans, each read by the mixture of its own hospital; eps = .015. In the "
        "worst case a scan is silently wrong if one attack gets a wrong answer that is not "
        "refused, else refused if one attack gets it refused, else answered and right. The "
        f"consistent attacks (CHCMOA) take the {attacked} scans within eps of another answer, read "
        "wrongly under another attack, or among 64 evenly spaced ones. "
        f"{'; '.join(checks).capitalize()}."
    )


def render_sources(results: md.Results) -> str:
    """Renders what is refused when clean and what is silently wrong when attacked, by source."""
    parts = []
    for result in md.results_of(results, "stability", md.PROTOCOLS).values():
        rows = result["rows"]
        clean, sources = unpack(rows[CLEAN]), rows["scans"]["sources"]
        groups = group_rows(sources)
        marks = {
            "clean: refused": clean.is_refused,
            "attacked: silently wrong": lambda d, rows=rows: find_worst(list_worst(rows), d).silent,
        }
        lines = [
            [f"{d:g}", name, *(_render_part(mark(d)[own]) for own in groups.values())]
            for d in RADII
            for name, mark in marks.items()
        ]
        parts.append(md.table(["refused within", "%", *groups], lines))
    return "\n\n".join(parts)


def _render_part(chosen: Tensor) -> str:
    return f"{md.percent(float(chosen.double().mean()))} of {len(chosen)}"


TABLES: dict[str, md.Renderer] = {
    "stability": render_outcomes,
    "stability-rejection": render_rejection,
    "stability-sources": render_sources,
}
