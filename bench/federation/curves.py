"""The paper's figure 3 from a table's result file: validation accuracy of each method by round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.federation.methods import in_order

FIGURES = (("clean", "clean"), ("pgd", "under PGD-3"))
COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#332288"
)  # fmt: skip


def draw(rows: dict[str, Any], title: str, path: Path) -> None:
    """Writes an SVG: a panel for clean scans and one for attacked ones, a line a method."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = title  # the same figures, the same file
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, meaning) in zip(panels, FIGURES, strict=True):
        for colour, (method, row) in zip(COLOURS, _methods(rows).items(), strict=False):
            known = [(i, r[key]) for i, r in enumerate(row["rounds"], start=1) if r and key in r]
            if known:
                axes.plot(*zip(*known, strict=True), label=method, color=colour, linewidth=1.6)
        axes.set_title(f"{meaning}, mean over the clients", fontsize=9)
        axes.set_xlabel("round")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on validation scans")
    panels[0].legend(fontsize=7, loc="lower right")  # all methods: not all have been attacked
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _methods(rows: dict[str, Any]) -> dict[str, Any]:
    """One line a training: the whole system is its mixture, trained once."""
    return {name: row for name, row in in_order(rows).items() if name != "MedFedPure"}
