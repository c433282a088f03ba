"""README table of what matters most: the published figures, no defence, the whole defence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from bench.markdown import Result, Results, number, percent, table

# Karami et al., Br35H: without an attack, and under PGD-7 (A0)
PUBLISHED = {"clean": 0.9767, "A0": 0.8733}
SYSTEMS = ("undefended", "defence")
SOURCES = {"br35h": "Br35H", "brain-tumor-mri": "the second source"}
Line = list[str]


def glance(results: Results) -> str:
    """A line for each question, of those that have been measured. Raises KeyError for none."""
    lines: list[Line] = []
    for stem, render in _RENDERERS.items():
        with suppress(KeyError):  # not measured, or not all of it
            lines += render(results[stem])
    if not lines:
        raise KeyError(" or ".join(f"{stem}.json" for stem in _RENDERERS))
    return table(["", "published", "no defence", "whole defence"], lines)


def _published_split(result: Result) -> list[Line]:
    """The published kind of split: near-duplicates of test scans are in training."""
    clean, attacked = (result["rows"][name]["systems"] for name in PUBLISHED)
    cells = [_pair(clean[s], attacked[s]) for s in SYSTEMS]
    what = f"Br35H, the published kind of split, pooled training, n = {clean['defence']['n']}"
    published = " / ".join(f"{100 * share:.2f}" for share in PUBLISHED.values())
    return [[f"{what}: right as they are / under A0, %", published, *cells]]


def _apart(result: Result) -> list[Line]:
    """Folds without near-duplicates, the weights that ship."""
    clean, attacked = (result["rows"][name]["systems"] for name in PUBLISHED)
    lines = []
    for source, label in SOURCES.items():
        blocks = [[row[s]["sources"][source] for row in (clean, attacked)] for s in SYSTEMS]
        what = f"{label}, near-duplicates kept apart, ten hospitals, n = {blocks[0][0]['n']}"
        lines.append([f"{what}: the same", "", *(_pair(*pair) for pair in blocks)])
    return lines


def _ladder(result: Result) -> list[Line]:
    """Attackers who know the defence, on the ladder's own scans."""
    found, lines = result["standings"], []
    for source, label in SOURCES.items():
        blocks = [[found[s][key]["sources"][source] for key in ("clean", "worst")] for s in SYSTEMS]
        what = f"{label}, n = {blocks[0][0]['n']} of the same fold"
        waits = [name for name in found["defence"]["to_come"] if name != "A8"]  # of fresh noise
        attacks = "every attack"
        if waits:
            attacks = f"all attacks tried so far (to come: {' and '.join(waits)})"
        lines.append([f"{what}: right as they are / after {attacks} of the ladder, %", "",
                      *(_pair(*pair) for pair in blocks)])  # fmt: skip
    areas = {n: row["auroc"] for n, row in found["defence"]["detection"].items() if "auroc" in row}
    first, second = (areas.get(f"A9 ({way})") for way in (1, 2))
    least = min((a for name, a in areas.items() if name.startswith("A9b")), default=None)
    what = "detected, AUROC: attacks that know the detector (A9, its two ways / the worst of A9b's)"
    cells = " / ".join(map(number, (first, second, least, areas["worst"])))
    lines.append([f"{what} / each scan's least suspicious attack of all", "", "", cells])
    return lines


def _detection(result: Result) -> list[Line]:
    """Attacks on the mixture alone, as files in 8 bits."""
    rows = [result["rows"][f"trained, eps {eps}"] for eps in ("0.015", "0.004")]
    areas = [number(row["scores"]["fused"]["auroc"]) for row in rows]
    alarms = [percent(row["flagged"]["fused"]["accuracy"]) for row in rows]
    what = f"PGD-7 on the mixture, 8-bit files, eps .015 / .004, n = {rows[0]['n']}"
    return [
        [f"{what}: detected, AUROC", "", "", " / ".join(areas)],
        ["the same: an alarm is raised, %", "", "", " / ".join(alarms)],
    ]


def _looks(result: Result) -> list[Line]:
    """Outlined tumours of Br35H."""
    lesions, painting = result["rows"]["lesions"], result["rows"]["painting"]
    kept, gone = lesions["contrast_kept"], lesions["energy_removed"]
    falls = [percent(painting[k]["accuracy"]) for k in ("tumour", "elsewhere")]
    contrast = f"{percent(kept['median'])} / {percent(kept['tenth'])}"
    what = f"{lesions['n']} flagged tumours, purified: contrast kept, median / 10th percentile, %"
    painted = (
        f"of {painting['tumour']['n']} tumours (of {painting['found']} found, those on one side)"
    )
    return [
        [what, "", "", contrast],
        ["and an attack's energy removed from the same scans, median, %", "", "",
         percent(gone["median"])],
        [f"{painted} painted over / as much painted elsewhere: the probability falls by .1 or "
         "more in, %", "", "", " / ".join(falls)],
    ]  # fmt: skip


def _pair(first: Result, second: Result) -> str:
    return f"{percent(first['accuracy'])} / {percent(second['accuracy'])}"


_RENDERERS: dict[str, Callable[[Result], list[Line]]] = {
    "robustness-paper": _published_split,
    "robustness-multi-source": _apart,
    "ladder-multi-source": _ladder,
    "detection-multi-source": _detection,
    "looks-multi-source": _looks,
}
