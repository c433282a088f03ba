"""The command `tables`: Tables I and II, our figures beside the paper's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from bench import options
from bench.federation.methods import METHODS, in_order, methods_named
from bench.federation.methods import TABLES as KNOWN
from bench.markdown import Renderer, Result, Results, percent, results_of, source, span, table
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from train.data.corpus import load_corpus

NAMES = tuple(f"{name}-{setting}" for name in KNOWN for setting in ("paper", "reduced"))
HELP = "Tables I and II: every method trained on the same clients, and attacked"
LEVEL = 0.05  # of McNemar's test: what lies above is called a tie


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--table", type=int, choices=(1, 2), default=2, help="of the paper")
    add("--dataset", choices=("br35h", "cifar10"), default="br35h", help="Table I: cifar10 alone")
    add("--setting", choices=("reduced", "paper"), default="reduced", help="paper: on a GPU")
    add(
        "--methods", type=options.parse_names, metavar="LIST",
        help="all by default, of " + ", ".join(m.name for m in METHODS),
    )  # fmt: skip
    add("--limit", type=int, default=0, help="largest number of test scans a client; 0: all")
    add("--lite-limit", type=int, default=12, help="the same for the attack A3-lite")
    add("--evasion-limit", type=int, default=6, help="test scans a client for the N x N; 0: none")
    add("--seed", type=int, default=0, help="of the training")
    add("--runs", type=Path, default=Path("runs") / "tables", help="folder of the trainings")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Trains and attacks the methods."""
    from bench.federation import comparison
    from bench.federation.trainings import Places

    name = f"{args.table}-{args.dataset}"
    if name not in KNOWN:
        raise ValueError("Table I has CIFAR-10 alone: --dataset cifar10")
    table, methods = KNOWN[name], methods_named(args.methods)
    places = Places(options.root_of(args), args.cache, args.manifests, args.runs)
    corpus = load_corpus(table.protocol, places.data, places.cache, places.manifests)
    out = args.out or Path("results") / f"table-{name}-{args.setting}.json"
    settings = options.settings_of(args)
    store = ResultFile(
        out, "tables",
        {"split_sha256": corpus.split_sha256, "settings": settings},
        {"dataset": corpus.protocol, "machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    comparison.run(
        store, table, args.setting, methods, corpus, places, seed=args.seed, limit=args.limit,
        lite_limit=args.lite_limit, evasion_limit=args.evasion_limit,
    )  # fmt: skip
    store.close()


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
    known = KNOWN[name.rsplit("-", 1)[0]]
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
    known = KNOWN[f"{number}-{dataset}"]
    numeral = {"1": "I", "2": "II"}[number]
    return f"Table {numeral}, {known.dataset}, {known.backbone} clients, {setting} setting"


TABLES: dict[str, Renderer] = {"methods": methods, "evasion": evasion}
