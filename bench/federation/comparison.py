"""The command `tables`: Tables I and II, every method trained on the same clients.

The round is chosen on validation scans. Besides the paper's attack on the classifier there is one
through the whole of each method, and each client's attack on every other's model ('internal
evasion', Kim et al. 2023).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import markdown as md
from bench import options
from bench.data import hospital_test_scans
from bench.federation.methods import (
    METHODS,
    Method,
    Table,
    count_cost,
    preset_of,
    select_methods,
    sort_rows,
)
from bench.federation.methods import TABLES as KNOWN
from bench.federation.trainings import Federation, Places, build_federation, select_settings
from bench.parallel import ParallelBatches, say
from bench.provenance import key_of, machine_facts
from bench.result_file import ResultFile
from bench.robustness.attacks import DEFENCE, Attack
from bench.robustness.transfer import ClientModel, evaluate_transfer
from core import metrics
from train.config import read_preset
from train.data.corpus import Corpus, load_corpus
from train.data.dataset import ScanDataset
from train.device import pick_device
from train.federated import metrics as fed_metrics
from train.federated.experiment import read_experiment

BATCH = 25
NAMES = tuple(f"{name}-{setting}" for name in KNOWN for setting in ("paper", "reduced"))
HELP = "Tables I and II: every method trained on the same clients, and attacked"
LEVEL = 0.05  # of McNemar's test: what lies above is called a tie
FIGURES = (("clean", "clean"), ("pgd", "under PGD-3"))
COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#332288"
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--table", type=int, choices=(1, 2), default=2, help="table of the paper")
    add("--dataset", choices=("br35h", "cifar10"), default="br35h", help="Table I: cifar10 alone")
    add("--setting", choices=("reduced", "paper"), default="reduced", help="paper: on a GPU")
    add(
        "--methods", type=options.parse_names, metavar="LIST",
        help="all by default, of " + ", ".join(m.name for m in METHODS),
    )  # fmt: skip
    add("--limit", type=int, default=0, help="largest number of test scans a client; 0: all")
    add("--lite-limit", type=int, default=12, help="scans a client for PGD-20")
    add("--evasion-limit", type=int, default=6, help="scans a client for transfer; 0: none")
    add("--seed", type=int, default=0, help="of the training")
    add("--runs", type=Path, default=Path("runs") / "tables", help="folder of the trainings")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Trains and attacks the methods."""
    name = f"{args.table}-{args.dataset}"
    if name not in KNOWN:
        raise ValueError("Table I has CIFAR-10 alone: --dataset cifar10")
    known, methods = KNOWN[name], select_methods(args.methods)
    places = Places(options.root_of(args), args.cache, args.manifests, args.runs)
    corpus = load_corpus(known.protocol, places.data, places.cache, places.manifests)
    out = args.out or Path("results") / f"table-{name}-{args.setting}.json"
    settings = options.settings_of(args)
    store = ResultFile(
        out, "tables",
        {"split_sha256": corpus.split_sha256, "settings": settings},
        {"dataset": corpus.protocol, "machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    measure(
        store, known, args.setting, methods, corpus, places, seed=args.seed, limit=args.limit,
        lite_limit=args.lite_limit, evasion_limit=args.evasion_limit,
    )  # fmt: skip
    store.close()


def measure(
    store: ResultFile,
    known: Table,
    setting: str,
    methods: Sequence[Method],
    corpus: Corpus,
    places: Places,
    *,
    seed: int,
    limit: int,
    lite_limit: int,
    evasion_limit: int,
) -> None:
    """Measures a row of `store` for each method; a stopped run resumes, also within a training."""
    presets = {m: read_preset(preset_of(known, setting, m)) for m in METHODS}
    key_parts = {m.name: {"preset": select_settings(p, whole=m.whole)} for m, p in presets.items()}
    # every method has the same clients
    scans = hospital_test_scans(
        read_experiment(known.presets[setting], known.protocol, seed), corpus, places.data,
        places.cache, limit=limit, manifests=places.manifests,
    )  # fmt: skip
    for method in methods:
        own = build_federation(
            preset_of(known, setting, method), known.protocol, seed, corpus, places
        )

        def row(method: Method = method, own: Federation = own) -> dict[str, Any]:
            say(f"{method.name}: {own.preset}")
            training = own.train()
            models = _load_clients(own, method.whole)
            found: dict[str, Any] = {
                "meaning": method.meaning,
                "preset": own.preset,
                "digest": own.experiment.digest,
                "best_round": training["best_round"],
                "rounds": [_mean_by_key(r["summary"]) for r in training["rounds"]],
                "cost": models[0].cost,
                "attacks": {
                    a.key: _figures(models, _thin(scans, a, lite_limit), a) for a in known.attacks
                },
            }
            if evasion_limit and not method.whole:
                few = [part.thin(evasion_limit, truncate=True) for part in scans]
                found["evasion"] = measure_evasion(models, few, known.attacks[1])
            return found

        store.row(method.name, row, **key_parts[method.name])
    rows = sort_rows(store.content["rows"])
    groups = {
        a.key: [g for part in _thin(scans, a, lite_limit) for g in part.groups]
        for a in known.attacks
    }
    store.content["tests"] = compare(rows, groups)
    store.content["stale"] = [n for n, r in rows.items() if r["key"] != key_of(key_parts[n])]
    store.write()
    draw_curves(
        rows,
        f"{known.dataset}, {known.backbone} clients, {setting} setting",
        store.path.with_suffix(".svg"),
    )


def compare(
    rows: dict[str, Any], groups: dict[str, list[int]], best: str = "MedFedPure"
) -> dict[str, Any]:
    """Compares `best` with each other method on the same scans by McNemar's exact test.

    `difference` is the 95 % interval of the difference in accuracy when near-duplicate groups, by
    attack in `groups`, are redrawn: McNemar's test takes scans as independent.
    """
    tests: dict[str, Any] = {}
    for name, row in rows.items():
        if best not in rows or name == best:
            continue
        tests[name] = {}
        for attack, figures in row["attacks"].items():
            both = (r["attacks"][attack]["right"] for r in (rows[best], row))
            mine, theirs = (torch.tensor([bit == "1" for bit in bits]) for bits in both)
            b, c, p = metrics.mcnemar(mine, theirs)
            moved = mine.double() - theirs.double()
            tests[name][attack] = {
                f"only_{best}": b, "only_other": c, "p": p, "n": figures["n"],
                "difference": metrics.group_bootstrap_interval(moved, groups[attack]),
            }  # fmt: skip
    return tests


def measure_evasion(
    models: Sequence[ClientModel], scans: Sequence[ScanDataset], attack: Attack
) -> dict[str, Any]:
    """Measures client j's accuracy on its scans, attacked through client i's model: [i][j]."""
    lanes = ParallelBatches(pick_device(), BATCH)
    matrix = np.zeros((len(models), len(models)))
    for i, attacker in enumerate(models):
        for j, victim in enumerate(models):
            right = evaluate_transfer(attack, attacker, victim, scans[j], lanes)
            matrix[i, j] = float(right.double().mean())
    own = np.eye(len(models), dtype=bool)
    return {
        "matrix": matrix.tolist(),
        "n": sum(len(part) for part in scans),
        "diagonal": float(matrix[own].mean()),
        "off_diagonal": float(matrix[~own].mean()) if len(models) > 1 else None,
    }


def _figures(
    models: Sequence[ClientModel], scans: Sequence[ScanDataset], attack: Attack
) -> dict[str, Any]:
    lanes = ParallelBatches(pick_device(), BATCH)
    right = [
        evaluate_transfer(attack, r, r, part, lanes) for r, part in zip(models, scans, strict=True)
    ]
    clients = {
        c: {"accuracy": float(bits.double().mean()), fed_metrics.SCAN_COUNT: len(bits)}
        for c, bits in enumerate(right)
    }
    together = torch.cat(right)
    k, n = int(together.sum()), len(together)
    groups = [group for part in scans for group in part.groups]
    return {
        "meaning": attack.meaning,
        **fed_metrics.summarize(clients)["accuracy"],
        "k": k,
        "n": n,
        "interval": metrics.wilson_interval(k, n),
        "interval_by_group": metrics.group_bootstrap_interval(together, groups),
        "clients": [[int(bits.sum()), len(bits)] for bits in right],
        "right": "".join("01"[int(bit)] for bit in together),
    }


def _load_clients(own: Federation, whole: bool) -> list[ClientModel]:
    """Loads the clients' full pipelines, or their mixtures alone."""
    models, shape = [], own.corpus.shape
    for loaded in own.load_systems() if whole else ():
        system = loaded.with_options(policy="floor")
        spent = count_cost(system, lambda s=system: s.read(torch.full(shape, 0.5)))
        models.append(ClientModel(system.classifier_logits, system.logits, spent._asdict()))
    for model in () if whole else own.load_models():
        spent = count_cost(model, lambda m=model: m(torch.zeros(1, *shape, device=pick_device())))
        models.append(ClientModel(model, lambda x, _, m=model: m(x), spent._asdict()))
    return models


def _thin(scans: Sequence[ScanDataset], row: Attack, lite_limit: int) -> list[ScanDataset]:
    return (
        [part.thin(lite_limit, truncate=True) for part in scans]
        if row.knows == DEFENCE
        else list(scans)
    )


def _mean_by_key(summary: dict[str, Any] | None) -> dict[str, float] | None:
    return summary and {key: summary[key]["mean"] for key, _ in FIGURES if key in summary}


def methods_table(results: md.Results) -> str:
    """Renders each measured table of the paper."""
    return "\n\n".join(
        _block(name, result) for name, result in md.results_of(results, "table", NAMES).items()
    )


def evasion_table(results: md.Results) -> str:
    """Renders accuracy under attacks made with a client's own and with another's model."""
    parts = []
    for name, result in md.results_of(results, "table", NAMES).items():
        lines = []
        for method, row in sort_rows(result["rows"]).items():
            if "evasion" in row:
                found = row["evasion"]
                lines.append(
                    [method, md.percent(found["diagonal"]), md.percent(found["off_diagonal"])]
                )
        if lines:
            n = next(r["evasion"]["n"] for r in result["rows"].values() if "evasion" in r)
            head = ["method", "own attack, %", "another client's attack, %"]
            parts.append(f"**{_title(name)}**, n = {n}\n\n{md.table(head, lines)}")
    return "\n\n".join(parts)


def _block(name: str, result: md.Result) -> str:
    known = KNOWN[name.rsplit("-", 1)[0]]
    rows = sort_rows(result["rows"])
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
    titles = {attack.key: attack.title for attack in known.attacks}
    head = ["method", *(f"{titles.get(a, a)}, %" for a in attacks), "paper: clean/attacked, %"]
    head += ["parameters", "multiply-adds", "round"]
    meanings = "; ".join(
        f"{titles.get(a, a)}: {next(iter(rows.values()))['attacks'][a]['meaning']}" for a in attacks
    )
    note = (
        "Mean over the clients, each with its own model on its own test scans [95 % of all scans, "
        f"Wilson], sd, worst client, of ten their bottom decile. {meanings}. ≈: no difference "
        f"from MedFedPure on the same scans (McNemar's exact test by scan, p above {LEVEL}, or an "
        f"interval of the difference by near-duplicate group that holds 0). {md.source(result)}"
    )
    if result.get("stale"):
        note += f" Of an earlier preset: {', '.join(result['stale'])}."
    return f"**{_title(name)}**\n\n{md.table(head, lines)}\n\n{note}"


def _cell(figures: dict[str, Any], test: dict[str, Any] | None) -> str:
    tie = ""
    if test:
        low, high = test["difference"]
        tie = " ≈" if test["p"] > LEVEL or low <= 0 <= high else ""
    return (
        f"{md.percent(figures['mean'])}{tie} [{md.span(figures['interval'])}] "
        f"± {md.percent(figures['sd'])}, worst {md.percent(figures['worst'])}"
    )


def _title(name: str) -> str:
    number, dataset, setting = name.split("-")
    known = KNOWN[f"{number}-{dataset}"]
    numeral = {"1": "I", "2": "II"}[number]
    return f"Table {numeral}, {known.dataset}, {known.backbone} clients, {setting} setting"


def draw_curves(rows: dict[str, Any], title: str, path: Path) -> None:
    """Draws the paper's figure 3, validation accuracy by round: clean and attacked, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = title  # the same figures, the same file
    # the full pipeline is its mixture, trained once
    rows = {name: row for name, row in sort_rows(rows).items() if name != "MedFedPure"}
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, meaning) in zip(panels, FIGURES, strict=True):
        for colour, (method, row) in zip(COLOURS, rows.items(), strict=False):
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


TABLES: dict[str, md.Renderer] = {"methods": methods_table, "evasion": evasion_table}
