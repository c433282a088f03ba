"""The command `federation` and its tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from bench import options
from bench.markdown import Result, Results, number, percent, results_of, source, table
from bench.provenance import key_of, machine_facts
from bench.result_file import ResultFile
from train.config import read_preset
from train.data.split import PROTOCOLS, read_manifest

HELP = "the federation engine: overhead, payload, number of clients, poisoning, faults"
MB = 2**20
WORDS = {True: "yes", False: "**no**", None: ""}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add(
        "--rows", type=options.parse_names, metavar="LIST",
        help="all by default, of " + ", ".join(_FIGURE),
    )  # fmt: skip
    add("--protocol", default="leak-free", choices=list(PROTOCOLS), help="of the engine's rows")
    add("--seed", type=int, default=0, help="of the trainings; of 'personal' the first of three")
    add(
        "--personal-preset", default="federation-bench", metavar="NAME",
        help="preset that the row 'personal' trains; another than the default is another row",
    )  # fmt: skip
    add("--runs", type=Path, default=Path("runs") / "federation", help="folder of the trainings")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Measures the rows."""
    from bench.federation import run
    from bench.federation.federation_ground import LEARNING, PRESET, Ground
    from bench.federation.trainings import Places, decisive

    names = run.rows_named(args.rows)
    places = Places(options.root_of(args), args.cache, args.manifests, args.runs)
    manifests = {p: read_manifest(p, args.manifests).sha256 for p in (args.protocol, LEARNING)}
    settings = options.settings_of(args)
    store = ResultFile(
        args.out or Path("results") / "federation.json", "federation",
        {
            "manifest_sha256": manifests, "settings": settings,
            "preset": key_of(decisive(read_preset(PRESET))),
        },
        {"machine": machine_facts(torch.device("cpu"))},
        args.fresh,
    )  # fmt: skip
    ground = Ground(places, args.protocol, seed=args.seed)
    run.run(store, ground, names, args.personal_preset)
    store.close()


def federation(results: Results) -> str:
    """Every row in a line, and below it what has more than one figure."""
    result = results_of(results, "federation", ("",))[""]
    lines, parts = [], []
    order = list(_FIGURE)
    for name, row in sorted(result["rows"].items(), key=lambda r: order.index(r[0].split(":")[0])):
        kind = name.split(":")[0]
        figure = row["unmeasured"] if "unmeasured" in row else _FIGURE[kind](row)
        lines.append([name, figure, row["must"], WORDS[row["met"]]])
        if kind in _DETAIL:
            parts.append(f"**{name}**: {row['meaning']}.\n\n{_DETAIL[kind](row)}")
    head = ["", "measured", "must", "met"]
    return "\n\n".join([table(head, lines), *parts, source(result)])


def _twice(row: Result) -> str:
    return f"{row['files'] - len(row['different'])} of {row['files']} files the same"


def _faults(row: Result) -> str:
    met = sum(figures["met"] for figures in row["faults"].values())
    return f"{met} of {len(row['faults'])} as they must be"


def _simulation(row: Result) -> str:
    return ", ".join(f"{key} {value:+.2f} points" for key, value in row["points"].items())


def _overhead(row: Result) -> str:
    ratio, n = row["ratio"], len(row["times"]["bare"])
    return (
        f"{ratio['wall']:.3f} on the clock, {ratio['cpu']:.3f} of the processor's time, "
        f"medians of {n}"
    )


def _payload(row: Result) -> str:
    return f"{row['packed_by_tensors']:.4f} of the tensors' bytes at most"


def _scaling(row: Result) -> str:
    off = {key: percent(fit["largest_deviation"]) for key, fit in row["fits"].items()}
    held = row["growth"].get("per_client_mb")
    memory = "not measured" if held is None else f"{held:+.3f} MB a client"
    return (
        f"off a line by at most: seconds {off['cpu_s']} %, bytes {off['bytes']} %; memory, scans "
        f"apart, {memory}"
    )


def _poison(row: Result) -> str:
    lost = row["lost_points"]
    return ", ".join(f"{name} {-value:+.1f} points" for name, value in lost.items())


def _batch_norm(row: Result) -> str:
    means = {kind: run["last"]["clean"]["mean"] for kind, run in row["runs"].items()}
    return ", ".join(f"{kind} {percent(mean)} %" for kind, mean in means.items())


def _personal(row: Result) -> str:
    test = row["differences"]["test"]
    low, high = test["interval"]
    return f"{test['points']:+.1f} points on test scans [{low:+.1f} to {high:+.1f}]"


def _faults_detail(row: Result) -> str:
    lines = []
    for name, figures in row["faults"].items():
        reasons = "; ".join(f"client {c}: {reason}" for c, reason in figures["failures"].items())
        if "files" in figures:
            reasons = f"{figures['files'] - len(figures['different'])} of {figures['files']} files "
            reasons += "as in a run that was never stopped"
        trained = ", then ".join(_and(clients) for clients in figures["trained"])
        lines.append([name, trained, reasons])
    return table(["", "clients that trained", "on the record"], lines)


def _payload_detail(row: Result) -> str:
    lines = [
        [
            phase,
            *(number(p[k] / MB, 2) for k in ("tensors", "down_per_round", "up_per_round")),
            str(p["rounds"]),
            number(p["total_per_client"] / MB, 0),
        ]
        for phase, p in row["phases"].items()
    ]
    head = ["phase", "tensors, MB", "down a round, MB", "up a round, MB", "rounds", "in all, MB"]
    return table(head, lines)


def _scaling_detail(row: Result) -> str:
    lines = [
        [
            n,
            *(number(f[k], 1) for k in ("wall_s", "cpu_s")),
            number(1e3 * f["cpu_s"] / int(n), 0),
            number(f["bytes"] / MB, 1),
            *(number(f[k], 0) for k in ("peak_mb", "resident_mb", "scans_mb")),
        ]
        for n, f in row["clients"].items()
    ]
    head = ["clients", "a round, s", "of it the processor's", "a client's part, ms"]
    head += ["bytes of a round, MB", "peak, MB", "resident, MB", "of it the clients' scans, MB"]
    payload = next(iter(row["clients"].values()))["payload_mb"]
    return f"{table(head, lines)}\n\nOne payload: {payload:.2f} MB."


def _runs_detail(row: Result) -> str:
    lines = [
        [
            name,
            *(percent(run["last"][key][k]) for key in ("clean", "pgd") for k in ("mean", "worst")),
            percent(run["best"]["clean"]["mean"]),
        ]
        for name, run in row["runs"].items()
    ]
    head = ["", "clean, mean, %", "worst client", "PGD-3, mean, %", "worst client"]
    return table([*head, "best round, clean, %"], lines)


def _personal_detail(row: Result) -> str:
    lines = []
    for name, folds in row["systems"].items():
        cells = [percent(folds[f][k]) for f in ("validation", "test") for k in ("mean", "worst")]
        lines.append([f"attention {name}", *cells])
    for fold, d in row["differences"].items():
        low, high = d["interval"]
        lines.append(
            [f"difference on {fold} scans", f"{d['points']:+.1f} [{low:+.1f} to {high:+.1f}]"]
            + [""] * 3
        )
    head = ["", "validation, mean, %", "worst client", "test, mean, %", "worst client"]
    gaps = [
        100 * (min(own["test"]) - min(one["test"]))
        for own, one in zip(row["runs"]["personal"], row["runs"]["shared"], strict=True)
    ]
    worst = ", ".join(f"{gap:+.1f}" for gap in gaps)
    return f"{table(head, lines)}\n\nThe worst client's difference on test scans, by seed: {worst}."


def _and(clients: list[int]) -> str:
    return ", ".join(str(client) for client in clients)


_FIGURE: dict[str, Callable[[Result], str]] = {
    "twice": _twice,
    "faults": _faults,
    "simulation": _simulation,
    "overhead": _overhead,
    "payload": _payload,
    "scaling": _scaling,
    "poison": _poison,
    "batch_norm": _batch_norm,
    "personal": _personal,
}
_DETAIL: dict[str, Callable[[Result], str]] = {
    "faults": _faults_detail,
    "payload": _payload_detail,
    "scaling": _scaling_detail,
    "poison": _runs_detail,
    "batch_norm": _runs_detail,
    "personal": _personal_detail,
}

TABLES = {"federation": federation}
