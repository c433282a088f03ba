"""Figures of the docs, drawn from the result files as SVG."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from bench.markdown import Result, Results
from bench.report.headline import SUITE, read_scores
from bench.robustness.worst_case import robust_mask
from bench.stability.outcomes import CLEAN, draw_curve, list_worst, unpack
from bench.summaries import compute_roc
from core import metrics
from train.data.dataset import space_evenly

Data = dict[str, Any]
DETECTION, CERTIFICATE = "detection-patients", "certify-patients"
STABILITY = "stability-patients"
# Okabe and Ito's palette, told apart with any colour vision
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#777777"
SYSTEMS = {
    "undefended": ("plain classifier", GREY, "s", "-"),
    "trained-mixture": ("adversarially trained mixture", BLUE, "o", "-"),
    "defence": ("full pipeline", ORANGE, "D", "--"),
}
STYLE = {
    "font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "svg.fonttype": "path", "svg.hashsalt": "medfedpure",
}  # fmt: skip
WIDTH = 7.3  # inches; about 700 pixels


def draw_all(results: Results) -> dict[str, bytes]:
    """Returns the SVG of each figure whose results exist, by file name."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = {}
    for name, data in read_all(results).items():
        _, draw, height = FIGURES[name]
        file = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            draw(figure, data)
            facts = {"Date": None, "Description": f"data {data_key(data)}"}
            figure.savefig(file, format="svg", metadata=facts)
        drawn[name] = file.getvalue()
    return drawn


def data_key(data: Data) -> str:
    """Returns a short hash of a figure's data, which its SVG holds."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def read_all(results: Results) -> dict[str, Data]:
    """Returns the data of each figure whose results exist, by file name."""
    found = {}
    for name, (read, _, _) in FIGURES.items():
        with suppress(KeyError):
            found[name] = read(results)
    return found


def read_robust_accuracy(results: Results) -> Data:
    """Returns accuracy clean, under PGD-7 and in the worst case, of the README's systems."""
    series: Data = {"clean": [], "PGD-7 on the classifier": [], "worst case of the attacks run": []}
    scores = read_scores(results)
    for score in scores:
        for blocks, block in zip(series.values(), score[1:], strict=True):
            blocks.append(block and [block["accuracy"], *block["interval_by_group"], block["n"]])
    return {"systems": [s.name for s in scores], "series": series}


def draw_robust_accuracy(figure: Any, data: Data) -> None:
    """Draws a group of bars for each system."""
    axes = figure.subplots()
    width = 0.26
    colours = (BLUE, ORANGE, GREY)
    for i, (colour, (name, blocks)) in enumerate(zip(colours, data["series"].items(), strict=True)):
        n = next((b[3] for b in blocks if b), None)
        for j, block in enumerate(blocks):
            place = j + (i - 1) * width
            if block is None:
                axes.text(
                    place, 2, "not measured", rotation=90, ha="center", fontsize=9, color=GREY
                )
                continue
            value, low, high = (100 * v for v in block[:3])
            label = f"{name} (n = {n})" if j == 0 else None
            axes.bar(place, value, width * 0.92, color=colour, label=label)
            errors = [[max(value - low, 0)], [max(high - value, 0)]]
            axes.errorbar(place, value, errors, color="black", capsize=3, linewidth=1)
            axes.text(place, max(high, value) + 1.5, f"{value:.1f}", ha="center", fontsize=9)
    labels = [name.replace(" + ", "\n+ ").replace(": ", ":\n") for name in data["systems"]]
    labels = [
        label.replace("trained ", "trained\n").replace("and p", "\nand p") for label in labels
    ]
    axes.set_xticks(range(len(labels)), labels, fontsize=10)
    axes.set(ylabel="accuracy, %", ylim=(0, 107), yticks=range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10, columnspacing=1.2)


def read_accuracy_by_eps(results: Results) -> Data:
    """Returns accuracy under APGD-CE through each whole system, by size of the perturbation."""
    rows = results[SUITE]["rows"]
    data: Data = {}
    for system in SYSTEMS:
        curve = sorted((r for r in rows.values() if r.get("curve") == system),
                       key=lambda r: r["eps"])  # fmt: skip
        n = curve[0]["n"] if curve else 0
        points = [_read_clean(rows[f"clean: {system}"], n)] if curve else []
        data[system] = points + [[r["eps"], r["accuracy"], *r["interval"], r["n"]] for r in curve]
    if not all(data.values()):
        raise KeyError("curve")  # not measured yet
    return data


def draw_accuracy_by_eps(figure: Any, data: Data) -> None:
    """Draws a line with whiskers for each system, at evenly spaced sizes."""
    axes = figure.subplots()
    sizes = [point[0] for point in data["defence"]]
    for i, (system, points) in enumerate(data.items()):
        name, colour, marker, line = SYSTEMS[system]
        x = [j + (i - 1) * 0.07 for j in range(len(points))]
        _, y, low, high, _ = zip(*points, strict=True)
        errors = [[100 * max(v - e, 0) for v, e in zip(y, low, strict=True)],
                  [100 * max(e - v, 0) for v, e in zip(y, high, strict=True)]]  # fmt: skip
        axes.errorbar(x, [100 * v for v in y], errors, label=name, color=colour, marker=marker,
                      linestyle=line, capsize=3, linewidth=1.8)  # fmt: skip
    axes.set_xticks(range(len(sizes)), ["0\n(clean)", *(f"{size:g}" for size in sizes[1:])])
    axes.set(xlabel="L∞ size ε of the perturbation (pixels in [0, 1])", ylabel="accuracy, %")
    axes.set(ylim=(-3, 103), yticks=range(0, 101, 20))
    n = data["defence"][0][4]
    axes.set_title(f"APGD-CE through the whole system, n = {n}", fontsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, fontsize=10)


def read_detector(results: Results) -> Data:
    """Returns the fused score's histograms and its ROC, under unaware and aware attacks."""
    if DETECTION not in results:
        raise KeyError(DETECTION)
    rows = results[DETECTION]["rows"]
    suite = results[SUITE]["rows"]
    names = {"clean": "clean", "trained, eps 0.004": "PGD-7, ε = 0.004",
             "trained, eps 0.015": "PGD-7, ε = 0.015"}  # fmt: skip
    aware, clean = suite["A9: defence"], suite["clean: defence"]["scores"][0]
    negative = [s for s, bit in zip(clean, aware["right"], strict=True) if bit != "-"]
    curves = {}
    for scores in aware["scores"]:
        area = _area(negative, scores)
        curves[area] = compute_roc(torch.tensor(negative), torch.tensor(scores))
    worst = min(curves)
    return {
        "n": rows["clean"]["n"],
        "tau": rows["clean"]["tau"]["fused"],
        "histograms": {name: rows[row]["histogram"]["fused"] for row, name in names.items()},
        "roc": {
            "PGD-7, ε = 0.015": _curve(rows["trained, eps 0.015"]["scores"]["fused"]),
            "PGD-7, ε = 0.004": _curve(rows["trained, eps 0.004"]["scores"]["fused"]),
            "PGD-7, ε = 0.015, paper's score": _curve(
                rows["trained, eps 0.015"]["scores"]["paper"]
            ),
            "detector-aware, ε = 0.015": [worst, curves[worst]],
        },
        "aware_n": len(negative),
    }


def draw_detector(figure: Any, data: Data) -> None:
    """Draws score histograms beside ROC curves."""
    left, right = figure.subplots(1, 2)
    colours = (GREY, BLUE, ORANGE)
    for colour, (name, bins) in zip(colours, data["histograms"].items(), strict=True):
        counts, low, high = bins["counts"], bins["low"], bins["high"]
        edges = [low + (high - low) * i / len(counts) for i in range(len(counts) + 1)]
        shares = [100 * count / data["n"] for count in counts]
        left.stairs(shares, edges, color=colour, fill=True, alpha=0.35)
        left.stairs(shares, edges, color=colour, label=name, linewidth=1.6)
    left.axvline(data["tau"], color="black", linestyle=":", label="threshold τ of the alarm")
    left.set(xlabel="fused detector score", ylabel=f"scans, % (n = {data['n']} each)")
    left.set(xlim=(-8, 9))
    left.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), title="scans",
                title_fontsize=9)  # fmt: skip
    styles = ((ORANGE, "-"), (BLUE, "--"), (GREY, "-."), (PURPLE, "-"))
    for (colour, line), (name, (area, curve)) in zip(styles, data["roc"].items(), strict=True):
        label = f"{name}: {area:.2f}"
        right.plot(range(101), [100 * v for v in curve], color=colour, linestyle=line,
                   label=label, linewidth=1.8)  # fmt: skip
    right.set(xlabel="false-positive rate, %", ylabel="true-positive rate, %")
    right.set(xlim=(-2, 100), ylim=(-2, 102))
    right.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2),
                 title="attack: AUROC", title_fontsize=9)  # fmt: skip


def read_certified_accuracy(results: Results) -> Data:
    """Returns balanced certified accuracy by radius."""
    if CERTIFICATE not in results:
        raise KeyError(CERTIFICATE)
    row = results[CERTIFICATE]["rows"]["accuracy"]
    return {"curve": row["curve"], "constant": row["constant"],
            "eps": row["eps"], "n": row["clean"]["all"]["n"],
            "certified": [row["certified"]["balanced"], *row["certified"]["interval_by_group"]],
            }  # fmt: skip


def draw_certified_accuracy(figure: Any, data: Data) -> None:
    """Draws the curve, its interval at the attacks' size, and what a constant answer reaches."""
    axes = figure.subplots()
    radii, values = [float(r) for r in data["curve"]], [100 * v for v in data["curve"].values()]
    label = f"certified classifier (n = {data['n']})"
    axes.plot(radii, values, color=BLUE, marker="o", linewidth=1.8, label=label)
    value, low, high = (100 * v for v in data["certified"])
    axes.errorbar(data["eps"], value, [[value - low], [high - value]], color=BLUE, capsize=4)
    axes.annotate(f"{value:.1f} % [{low:.1f} to {high:.1f}]\nat ε = {data['eps']:g}",
                  (data["eps"], high), (6, 6), textcoords="offset points", fontsize=10)  # fmt: skip
    constant = 100 * data["constant"]
    axes.axhline(constant, color=GREY, linestyle="--", label="one answer for every scan")
    axes.set(xlabel="certified L∞ radius ε (pixels in [0, 1])")
    axes.set(ylabel="certified balanced accuracy, %", ylim=(0, 103), yticks=range(0, 101, 20))
    axes.legend(loc="lower left", fontsize=10)


def read_risk_coverage(results: Results) -> Data:
    """Returns the risk of the answers given by coverage, clean and attacked."""
    if STABILITY not in results:
        raise KeyError(STABILITY)
    rows = results[STABILITY]["rows"]
    kinds = {"no attack": [unpack(rows[CLEAN])], "PGD-7": [unpack(rows["PGD-7"])],
             "worst case of all attacks": list_worst(rows)}  # fmt: skip
    curves = {name: draw_curve(readings)._asdict() for name, readings in kinds.items()}
    return {"n": len(rows["scans"]["units"]), "curves": curves}


def draw_risk_coverage(figure: Any, data: Data) -> None:
    """Draws a line for each kind of scans, with marks at the radii that are named."""
    axes = figure.subplots()
    colours = (GREEN, BLUE, ORANGE)
    for colour, (name, curve) in zip(colours, data["curves"].items(), strict=True):
        x, y = ([100 * v for v in curve[key]] for key in ("coverage", "risk"))
        axes.plot(x, y, color=colour, marker="o", linestyle=":", linewidth=1.4, label=name)
        for d, at in zip(curve["radii"], zip(x, y, strict=True), strict=True):
            axes.annotate(f"{d:g}", at, (4, 5), textcoords="offset points", fontsize=9)
    axes.set(xlabel=f"scans that are answered, % (n = {data['n']})", xlim=(60, 101))
    axes.set(ylabel="of these answered wrongly, %", ylim=(0, None))
    axes.legend(loc="upper left", fontsize=10, title="dots: radius d", title_fontsize=9)


def _read_clean(row: Result, n: int) -> list[float]:
    """Returns the point at eps 0 on the curve's scans, which are evenly spaced among all."""
    k = int(robust_mask(row)[space_evenly(len(row["right"]), n)].sum())
    return [0.0, k / n, *metrics.wilson_interval(k, n), n]


def _curve(score: Result) -> list[Any]:
    return [score["auroc"], score["roc"]]


def _area(negative: list[float], positive: list[float]) -> float:
    y = torch.tensor([0] * len(negative) + [1] * len(positive))
    return metrics.auroc(torch.tensor([*negative, *positive]), y)


FIGURES: dict[str, tuple[Callable[[Results], Data], Callable[[Any, Data], None], float]] = {
    "robust-accuracy.svg": (read_robust_accuracy, draw_robust_accuracy, 3.9),
    "accuracy-eps.svg": (read_accuracy_by_eps, draw_accuracy_by_eps, 3.6),
    "detector-scores.svg": (read_detector, draw_detector, 4.2),
    "certified-accuracy.svg": (read_certified_accuracy, draw_certified_accuracy, 3.4),
    "risk-coverage.svg": (read_risk_coverage, draw_risk_coverage, 3.4),
}
