"""Tables of the command `stability`: what refusing costs, and what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench.intervals import draw_share, draw_units, find_interval
from bench.stability.outcomes import Reads, find_worst, unpack
from bench.unseen.mixtures import from_bits
from core.stability import RADII

CLEAN, NOISES, CONSISTENT = "clean", ("grain", "sign noise"), "CHCMOA"
ATTACKS = ("PGD-7", "APGD-CE", "HCMOA")
NONE = 0.0  # a radius at which nothing is refused


def list_worst(rows: dict[str, Any], d: float) -> list[Reads]:
    """Return the readings that count in the worst case at d: clean, and under every attack.

    Of the consistent attacks those made for the next radius at or above d; at 0 there are none.
    """
    names = [CLEAN, *ATTACKS]
    made = sorted(float(name.split()[1]) for name in rows if name.startswith(CONSISTENT))
    if d and (fitting := [radius for radius in made if radius >= d]):
        names.append(f"{CONSISTENT} {fitting[0]}")
    return [unpack(rows[name]) for name in names]


def render_outcomes(results: md.Results) -> str:
    """Renders, for each radius, what is refused and what is silently wrong."""
    parts = []
    for result in md.results_of(results, "stability", md.PROTOCOLS).values():
        rows, scans = result["rows"], result["rows"]["scans"]
        times = draw_units(scans["units"])
        lines = [_render_outcome(rows, times, d) for d in (NONE, *RADII)]
        head = ["refused within", "clean: refused, %", "clean: silently wrong, %",
                "attacked: silently wrong, %", "attacked: refused, %",
                "attacked: answered and right, %", "right of those answered, %",
                "grain / sign noise: refused, %"]  # fmt: skip
        parts.append(f"{md.table(head, lines)}\n\n{_describe(rows)} {md.source(result)}")
    return "\n\n".join(parts)


def _render_outcome(rows: dict[str, Any], times: Tensor, d: float) -> list[str]:
    clean, worst = unpack(rows[CLEAN]), find_worst(list_worst(rows, d), d)
    everything = torch.ones_like(worst.right)
    noises = [unpack(rows[name]).is_refused(d) & everything for name in NOISES]
    shares = [
        (clean.is_refused(d), everything), (clean.is_silent(d), everything),
        (worst.silent, everything), (worst.refused, everything), (worst.right, everything),
        (worst.right, worst.right | worst.silent),
    ]  # fmt: skip
    cells = [_render_share(times, chosen, among) for chosen, among in shares]
    noise = " / ".join(md.percent(float(refused.double().mean())) for refused in noises)
    return [f"{d:g}" if d else "nothing refused", *cells, noise]


def _render_share(times: Tensor, chosen: Tensor, among: Tensor) -> str:
    low, high = find_interval(draw_share(times, chosen, among))
    share = float(chosen.double().sum() / among.double().sum())
    return f"{md.percent(share)} [{md.span((low, high))}]"


def _describe(rows: dict[str, Any]) -> str:
    labels = from_bits(rows["scans"]["labels"])
    checks = [
        f"of {rows['missed']['n']} clean scans other attacks flip {found['flipped']} within {d}, "
        f"{found['missed']} of which the search missed"
        for d, found in rows["missed"]["by_radius"].items()
    ]
    return (
        f"{len(labels)} scans, each read by the mixture of its own hospital; eps = .015. In the "
        "worst case a scan is silently wrong if one attack gets a wrong answer that is not "
        "refused, else refused if one attack gets it refused, else answered and right. "
        f"{'; '.join(checks).capitalize()}."
    )


def render_sources(results: md.Results) -> str:
    """Renders the shares of clean scans that are refused, by source."""
    parts = []
    for result in md.results_of(results, "stability", md.PROTOCOLS).values():
        rows = result["rows"]
        clean, sources = unpack(rows[CLEAN]), rows["scans"]["sources"]
        names = list(dict.fromkeys(sources))
        lines = [[f"{d:g}", *_share_by_source(clean.is_refused(d), sources, names)] for d in RADII]
        parts.append(md.table(["refused within", *names], lines))
    return "\n\n".join(parts)


def _share_by_source(chosen: Tensor, sources: Sequence[str], names: Sequence[str]) -> list[str]:
    own = [torch.tensor([source == name for source in sources]) for name in names]
    return [
        f"{md.percent(float(chosen[rows].double().mean()))} of {int(rows.sum())}" for rows in own
    ]


TABLES: dict[str, md.Renderer] = {
    "stability": render_outcomes,
    "stability-sources": render_sources,
}
