"""Plots of single rows and parts: accuracy under A0, the detector's ROC and scores, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.components.detector import HEADLINE
from bench.markdown import PROTOCOLS, Result, Results, number, results_of
from bench.report import plots
from bench.report.figure_groups import Panel, group, older, scans
from bench.report.plots import Curve, Share
from bench.robustness.old_tables import SYSTEM_NAMES

SHOWN = ("clean", "A0", "A0-8bit")  # rows of `robustness`
READ = ("defence", "undefended")  # whose probabilities are drawn
ATTACKED = {"plain": "the plain classifier", "trained": "the trained mixture"}
SCORE_NAMES = {"fused": "fused score", "paper": "the paper's score"}


def accuracy(results: Results) -> str:
    """Every system's accuracy on each row of `robustness`."""
    parts = []
    for protocol, result in results_of(results, "robustness", PROTOCOLS).items():
        if not _shown(result):
            parts.append(older(f"robustness-{protocol}", "row of these"))
            continue
        panels, n = [], 0
        for name, row in _shown(result).items():
            shares = [
                Share(SYSTEM_NAMES.get(system, system), block["accuracy"], _interval(block))
                for system, block in row["systems"].items()
            ]
            n = next(iter(row["systems"].values()))["n"]
            svg = plots.bars(f"Accuracy, {name}", shares, above=True)
            panels.append(Panel(name, svg, f"{protocol}, n = {n}; {row['meaning']}."))
        note = (
            "Each row stands alone. Whiskers: 95 % by near-duplicate group, by scan (Wilson) where "
            "all scans are right or none is."
        )
        parts.append(group(f"robustness-{protocol}", result, scans(n), panels, note))
    return "\n".join(parts)


def detector(results: Results) -> str:
    """ROC of the fused and the paper's score, a curve for each size of perturbation."""
    parts = []
    for protocol, result in results_of(results, "detection", PROTOCOLS).items():
        rows = _attacked(result)
        if not rows or not all("roc" in row["scores"]["fused"] for row in rows):
            parts.append(older(f"detection-{protocol}", "ROC"))
            continue
        panels = []
        for surface, name in ATTACKED.items():
            own = [r for r in rows if r["surface"] == surface]
            if not own:
                continue
            curves = [
                Curve(_roc_name(r, score), r["scores"][score]["roc"], i, score == "paper")
                for score in SCORE_NAMES
                for i, r in enumerate(own)
            ]
            title = f"PGD on {name}"
            caption = f"{protocol}, n = {own[0]['n']} attacked, the same clean."
            panels.append(Panel(title, plots.roc(f"ROC of the detector, {title}", curves), caption))
        note = (
            "Attacked scans against the same scans clean; 101 points a curve, AUROC with its 95 % "
            "interval by near-duplicate group from all scores. Dashed: the paper's reconstruction "
            "error. The attacks know nothing of the detector."
        )
        parts.append(group(f"detection-{protocol}", result, scans(rows[0]["n"]), panels, note))
    return "\n".join(parts)


def scores(results: Results) -> str:
    """How scores of clean and attacked scans are spread, and where the threshold lies."""
    parts = []
    for protocol, result in results_of(results, "detection", PROTOCOLS).items():
        rows, clean = _attacked(result), result["rows"].get("clean", {})
        if not all("histogram" in row for row in (clean, *rows)):
            parts.append(older(f"detection-{protocol}", "histogram of scores"))
            continue
        panels = [_histogram(r, clean, "fused") for r in rows]
        panels += [_histogram(r, clean, "paper") for r in rows if r["attack"]["eps"] == HEADLINE]
        note = (
            "The first and last bin hold what lies beyond. τ was chosen on validation scans: 5 % "
            f"of the clean ones lie above it. The paper's score is shown at eps {HEADLINE:g} alone."
        )
        parts.append(group(f"detection-{protocol}", result, scans(clean["n"]), panels, note))
    return "\n".join(parts)


def calibration(results: Results) -> str:
    """Reliability of the whole defence's probabilities, and of the undefended classifier's."""
    parts = []
    for protocol, result in results_of(results, "robustness", PROTOCOLS).items():
        blocks = [
            (name, system, row["systems"][system])
            for name, row in _shown(result).items()
            if name != "A0-8bit"
            for system in READ
            if "reliability" in row["systems"].get(system, {})
        ]
        if not blocks:
            parts.append(older(f"robustness-{protocol}", "bins of probabilities"))
            continue
        panels = []
        for name, system, block in blocks:
            title, bins = f"{SYSTEM_NAMES[system]}, {name}", block["reliability"]
            svg = plots.reliability(
                title, bins["n"], bins["tumours"], bins["mean"], READ.index(system)
            )
            error = number(block["calibration_error"])
            caption = f"{protocol}, n = {block['n']}; calibration error {error}."
            panels.append(Panel(title, svg, caption))
        note = (
            "On the dashed line as many scans show a tumour as the probability says. Whiskers: "
            "95 % by scan (Wilson); on top the scans in each bin. Calibration error: the mean gap "
            "between confidence and accuracy over 15 bins of confidence."
        )
        n = scans(blocks[0][2]["n"])
        parts.append(group(f"robustness-{protocol}", result, n, panels, note))
    return "\n".join(parts)


def _histogram(row: Result, clean: Result, score: str) -> Panel:
    before, after = clean["histogram"][score], row["histogram"][score]
    on = ATTACKED.get(row["surface"], row["surface"])
    title = f"{SCORE_NAMES[score]}, PGD on {on}, eps {row['attack']['eps']:g}"
    svg = plots.histograms(
        title, before["counts"], after["counts"], (before["low"], before["high"]),
        row.get("tau", {}).get(score),
    )  # fmt: skip
    rates = [100 * r["flagged"][score]["accuracy"] for r in (clean, row)]
    caption = f"n = {row['n']}. Above τ: {rates[0]:.1f} % of the clean, {rates[1]:.1f} % attacked."
    return Panel(title, svg, caption)


def _attacked(result: Result) -> list[dict[str, Any]]:
    """Rows of attacked scans with the classifier that was attacked, by eps."""
    rows = [
        {**row, "surface": name.partition(",")[0]}
        for name, row in result["rows"].items()
        if "scores" in row
    ]
    return sorted(rows, key=lambda r: (list(ATTACKED).index(r["surface"]), r["attack"]["eps"]))


def _roc_name(row: Result, score: str) -> str:
    found = row["scores"][score]
    low, high = (number(v) for v in found["interval"])
    eps = f"{row['attack']['eps']:g}"
    return f"{score}, eps {eps}: AUROC {number(found['auroc'])} [{low} to {high}]"


def _shown(result: Result) -> dict[str, Result]:
    return {name: result["rows"][name] for name in SHOWN if name in result["rows"]}


def _interval(block: Result) -> Sequence[float]:
    told = 0 < block["k"] < block["n"]  # of none or all, resampling groups cannot tell
    by_group = told and "interval_by_group" in block
    interval: Sequence[float] = block["interval_by_group" if by_group else "interval"]
    return interval
