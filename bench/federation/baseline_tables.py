"""README tables of the methods: Tables I and II with ours beside the paper's figures."""

from __future__ import annotations

from typing import Any

from bench.federation.methods import TABLES, in_order
from bench.markdown import Result, Results, percent, results_of, source, span, table

NAMES = tuple(f"{name}-{setting}" for name in TABLES for setting in ("paper", "reduced"))
LEVEL = 0.05  # of McNemar's test: what lies above is called a tie


def methods(results: Results) -> str:
    """One block per table that has been measured."""
    return "\n\n".join(
        _block(name, result) for name, result in results_of(results, "table", NAMES).items()
    )


def evasion(results: Results) -> str:
    """Attacks that a client makes with its own model, read by itself and by the others."""
    parts = []
    for name, result in results_of(results, "table", NAMES).items():
        lines = []
        for method, row in in_order(result["rows"]).items():
            if "evasion" in row:
                found = row["evasion"]
                lines.append([method, percent(found["diagonal"]), percent(found["off_diagonal"])])
        if lines:
            n = next(r["evasion"]["n"] for r in result["rows"].values() if "evasion" in r)
            head = ["method", "own attack, %", "another client's attack, %"]
            parts.append(f"**{_title(name)}**, n = {n}\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def _block(name: str, result: Result) -> str:
    known = TABLES[name.rsplit("-", 1)[0]]
    rows = in_order(result["rows"])
    attacks = list(next(iter(rows.values()))["attacks"])
    lines = []
    for method, row in rows.items():
        cells = [_cell(row["attacks"][a], result["tests"].get(method, {}).get(a)) for a in attacks]
        cost = row["cost"]
        published = known.published.get(method)
        lines.append(
            [
                method,
                *cells,
                "/".join(f"{value:g}" for value in published) if published else "",
                f"{cost['parameters'] / 1e6:.1f} M",
                f"{cost['multiply_adds'] / 1e9:.2f} G",
                str(row["best_round"]),
            ]
        )
    head = ["method", *(f"{a}, %" for a in attacks), "paper: clean/attacked, %"]
    head += ["parameters", "multiply-adds", "round"]
    meanings = "; ".join(
        f"{a}: {next(iter(rows.values()))['attacks'][a]['meaning']}" for a in attacks
    )
    note = (
        "Mean over the clients, each with its own model on its own test scans [95 % of all scans, "
        f"Wilson], sd, worst client, of ten their bottom decile. {meanings}. ≈: no difference "
        f"from MedFedPure on the same scans (McNemar's exact test by scan, p above {LEVEL}, or an "
        f"interval of the difference by near-duplicate group that holds 0). {source(result)}"
    )
    if result.get("stale"):
        note += f" Of an earlier preset: {', '.join(result['stale'])}."
    return f"**{_title(name)}**\n\n{table(head, lines)}\n\n{note}"


def _cell(figures: dict[str, Any], test: dict[str, Any] | None) -> str:
    tie = " ≈" if test and (test["p"] > LEVEL or _holds_none(test["difference"])) else ""
    return (
        f"{percent(figures['mean'])}{tie} [{span(figures['interval'])}] "
        f"± {percent(figures['sd'])}, worst {percent(figures['worst'])}"
    )


def _holds_none(interval: tuple[float, float]) -> bool:
    """Whether no difference at all lies within the interval."""
    return interval[0] <= 0 <= interval[1]


def _title(name: str) -> str:
    number, dataset, setting = name.split("-")
    known = TABLES[f"{number}-{dataset}"]
    numeral = {"1": "I", "2": "II"}[number]
    return f"Table {numeral}, {known.dataset}, {known.backbone} clients, {setting} setting"
