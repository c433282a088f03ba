"""The ladder's plots: accuracy by eps, the worst case as rows are added, ROC against its rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.markdown import LADDERS, Result, Results, number, results_of, span
from bench.report import plots
from bench.report.figure_groups import Panel, group, older, scans
from bench.report.plots import Curve, Share
from bench.robustness.attacks import ORDER
from bench.robustness.old_tables import SYSTEM_NAMES
from bench.robustness.worst_case import falls, kept, rows_of, stands
from bench.summaries import roc
from core import metrics
from train.data.dataset import space_evenly

READER = "defence"  # whose detector is drawn


def eps_curve(results: Results) -> str:
    """Accuracy by size of the perturbation, attacked through the whole of each system (A3)."""
    parts = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        rows = result["rows"]
        found: dict[str, list[tuple[float, Share]]] = {}
        for row in sorted((r for r in rows.values() if "curve" in r), key=lambda r: r["eps"]):
            name = _named(row["curve"], result)
            if name not in found:
                found[name] = [(0.0, _clean(rows[f"clean: {row['curve']}"], row["n"]))]
            found[name].append((row["eps"], Share(name, row["accuracy"], row["interval"])))
        if not found:
            parts.append(older(f"ladder-{protocol}", "row at other sizes of perturbation"))
            continue
        n = max(row["n"] for row in rows.values() if "curve" in row)
        panel = Panel(
            "Accuracy against eps", plots.over_eps(found),
            f"n = {n} for each system and eps. 0 is the same scans clean.",
        )  # fmt: skip
        note = (
            "Attack A3: Auto-PGD, exact gradients through the whole of each system. Whiskers: 95 % "
            "by scan (Wilson); systems at one eps are drawn side by side."
        )
        parts.append(group(f"ladder-{protocol}", result, scans(n), [panel], note))
    return "\n".join(parts)


def worst_case(results: Results) -> str:
    """Each system's accuracy clean, and after every further row of the ladder."""
    parts = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        panels, n = [], 0
        systems = list(dict.fromkeys(r["system"] for r in result["rows"].values() if "system" in r))
        for system in systems:
            shares = standing_after(result, system)
            n = max(row["n"] for row in result["rows"].values() if row.get("system") == system)
            caption = f"n = {n}; after all rows {100 * shares[-1].share:.1f} %"
            block = result.get("standings", {}).get(system, {}).get("worst", {})
            if 0 < block.get("k", 0) < n:  # of none or all, resampling groups cannot tell
                caption += f", 95 % by near-duplicate group {span(block['interval_by_group'])}"
            name = _named(system, result)
            panels.append(Panel(name, plots.bars(f"Worst case of {name}", shares), f"{caption}."))
        note = (
            "Each bar is the share of scans still read right after this row and all above it, in "
            "full precision and in 8 bits; it can only fall, and is no accuracy under the row "
            "alone: a row is tried on the scans that are still right (and a few others), A9b and "
            f"A10 on fewer. Whiskers: 95 % by scan (Wilson). {_meanings(result)}."
        )
        if not panels:
            parts.append(older(f"ladder-{protocol}", "row of an attack"))
            continue
        parts.append(group(f"ladder-{protocol}", result, scans(n), panels, note))
    return "\n".join(parts)


def standing_after(result: Result, system: str) -> list[Share]:
    """The worst case so far: clean, then after each row in the ladder's order."""
    own = rows_of(result["rows"], system)
    left, n = int(stands(own["clean"]).sum()), own["clean"]["n"]
    found = [_share("clean", left, n)]
    for name, row in falls(own).items():
        left -= row["fell"]
        found.append(_share(name, left, n))
    return found


def detector_on_ladder(results: Results) -> str:
    """ROC of the deciding score for every row of the ladder against the whole defence."""
    parts = []
    for protocol, result in results_of(results, "ladder", LADDERS).items():
        own = {r["row"]: r for r in result["rows"].values() if r.get("system") == READER}
        rows = [own[name] for name in ORDER if own.get(name, {}).get("scores")]
        if "clean" not in own or not own["clean"].get("scores") or not rows:
            parts.append(older(f"ladder-{protocol}", "scores of the whole defence's detector"))
            continue
        panels = [_against(row, own["clean"]["scores"][0]) for row in rows]
        score = result["provenance"].get("system", {}).get("score", "deciding")
        note = (
            f"Score: {score}. Each row's attacked scans against the same scans clean: the scans "
            "that were still right when the row came, and a few others, so n falls from row to "
            "row. A curve for each try of a row; no intervals are known here."
        )
        n = f"up to {len(own['clean']['right'])} scans"
        parts.append(group(f"ladder-{protocol}", result, n, panels, note))
    return "\n".join(parts)


def _against(row: Result, clean: Sequence[float]) -> Panel:
    negative = torch.tensor([s for s, bit in zip(clean, row["right"], strict=True) if bit != "-"])
    y = torch.cat([torch.zeros(len(negative)), torch.ones(len(negative))]).long()
    curves = []
    for i, scores in enumerate(row["scores"]):
        positive = torch.tensor(scores)
        area = number(metrics.auroc(torch.cat([negative, positive]), y))
        name = f"try {i + 1}: AUROC {area}" if len(row["scores"]) > 1 else f"AUROC {area}"
        curves.append(Curve(name, roc(negative, positive), i))
    svg = plots.roc(f"ROC of the detector, {row['row']}", curves)
    return Panel(
        row["row"], svg, f"n = {len(negative)} attacked, the same clean; {row['meaning']}."
    )


def _clean(row: Result, n: int) -> Share:
    """The clean reading of the curve's scans, which are evenly spaced among all."""
    return _share("clean", int(kept(row)[space_evenly(len(row["right"]), n)].sum()), n)


def _share(name: str, k: int, n: int) -> Share:
    return Share(name, k / n, metrics.wilson_interval(k, n))


def _meanings(result: Result) -> str:
    said = {r["row"]: r["meaning"] for r in result["rows"].values() if r.get("row") in ORDER}
    return "; ".join(f"{name}: {said[name]}" for name in ORDER if name in said)


def _named(system: str, result: Result) -> str:
    rows = result["rows"].values()
    meaning = next(
        r["meaning"] for r in rows if (r.get("row"), r.get("system")) == ("clean", system)
    )
    return SYSTEM_NAMES.get(system, str(meaning))
