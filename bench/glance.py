"""README table of what matters most: the published figures, no defence, the whole defence."""

from __future__ import annotations

from collections.abc import Callable

from bench.markdown import Result, Results, number, percent, table

# Karami et al., Br35H: without an attack, and under PGD-7 (A0)
PUBLISHED = {"clean": 0.9767, "A0": 0.8733}
ROWS = tuple(PUBLISHED)
SYSTEMS = ("undefended", "defence")
SOURCES = {"br35h": "Br35H", "brain-tumor-mri": "the second source"}
Line = list[str]


def glance(results: Results) -> str:
    """A line for each question, of those that have been measured. Raises KeyError for none."""
    lines: list[Line] = []
    for stem, render in _RENDERERS.items():
        if stem in results:
            lines += render(results[stem])
    if not lines:
        raise KeyError(" or ".join(f"{stem}.json" for stem in _RENDERERS))
    return table(["", "published", "no defence", "whole defence"], lines)


def _published_split(result: Result) -> list[Line]:
    """The published kind of split: near-duplicates of test scans are in training."""
    published = " / ".join(f"{100 * PUBLISHED[name]:.2f}" for name in ROWS)
    cells = [_pair(result, lambda row, s=s: row["systems"][s]) for s in SYSTEMS]
    return [["Br35H, the published kind of split (`paper`), read right, %: as they are / A0",
             published, *cells]]  # fmt: skip


def _apart(result: Result) -> list[Line]:
    """Folds without near-duplicates, the weights that ship."""
    lines = []
    for source, label in SOURCES.items():
        cells = [
            _pair(result, lambda row, s=s, p=source: row["systems"][s]["sources"][p])
            for s in SYSTEMS
        ]
        what = f"{label}, no near-duplicates in training, read right, %: as they are / A0"
        lines.append([what, "", *cells])
    return lines


def _pair(result: Result, block: Callable[[Result], Result]) -> str:
    return " / ".join(percent(block(result["rows"][name])["accuracy"]) for name in ROWS)


def _ladder(result: Result) -> list[Line]:
    """Attackers who know the defence."""
    found, lines = result["standings"], []
    for source, label in SOURCES.items():
        blocks = [found.get(system, {}).get("worst", {}).get("sources", {}) for system in SYSTEMS]
        cells = [percent(b[source]["accuracy"]) if source in b else "" for b in blocks]
        lines.append(
            [
                f"{label}: read right whatever attack is tried (the ladder's worst case), %",
                "",
                *cells,
            ]
        )
    row = found.get("defence", {}).get("detection", {}).get("A9")
    if row:
        lines.append(["attacks that hide from the detector (A9), AUROC", "", "", _area(row)])
    return lines


def _detection(result: Result) -> list[Line]:
    """Attacks on the mixture alone, as files in 8 bits."""
    rows = [result["rows"][f"trained, eps {eps}"]["scores"]["fused"] for eps in ("0.015", "0.004")]
    areas = " / ".join(map(_area, rows))
    return [["A0 detected, eps .015 / .004, 8-bit files, AUROC", "", "", areas]]


def _certify(result: Result) -> list[Line]:
    """The reader beside the system."""
    row = result["rows"]["accuracy"]
    what = f"certified at L∞ {row['eps']:g} by a reader of its own, balanced, %"
    beside = f"{percent(row['constant'])} (one answer for all)"
    return [[what, "", beside, percent(row["certified"]["balanced"])]]


def _looks(result: Result) -> list[Line]:
    """Outlined tumours of Br35H."""
    kept, gone = (result["rows"]["lesions"][k] for k in ("contrast_kept", "energy_removed"))
    falls = [percent(result["rows"]["painting"][k]["accuracy"]) for k in ("tumour", "elsewhere")]
    contrast = f"{percent(kept['median'])} / {percent(kept['tenth'])}"
    return [
        ["purified: a tumour's contrast kept, %, median / 10th percentile", "", "", contrast],
        ["and an attack's energy removed from the same scans, %", "", "", percent(gone["median"])],
        ["tumour painted over / as much elsewhere: the probability falls, %", "", "",
         " / ".join(falls)],
    ]  # fmt: skip


def _area(row: Result) -> str:
    return number(row["auroc"])


_RENDERERS: dict[str, Callable[[Result], list[Line]]] = {
    "robustness-paper": _published_split,
    "robustness-multi-source": _apart,
    "ladder-multi-source": _ladder,
    "detection-multi-source": _detection,
    "certify-multi-source": _certify,
    "looks-multi-source": _looks,
}
