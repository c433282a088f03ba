"""The command line of `python -m bench`: every command's options, each with its help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.components.certificate import ALPHA, CHOOSE, EPS, NOISES
from bench.federation.methods import METHODS
from bench.robustness.attacks import LADDER
from bench.robustness.budgets import BUDGETS
from bench.robustness.old_systems import SYSTEMS
from bench.robustness.systems import NAMES
from core.checkpoint import WEIGHTS
from train.data.sources import DataError, default_root
from train.data.split import MANIFESTS, PROTOCOLS

DESCRIPTION = """Measures the system and writes results/*.json; nothing is selected on test scans.

{commands}

A killed run goes on where it stopped when the same command is given again."""


CHOOSING = ("robustness", "purifier", "mae")  # on validation scans
ONE_BY_ONE = ("looks", "certify", "latency")
# options that decide no figure: rows computed under others may stand in the same file
INDIFFERENT = {
    "command", "weights", "data", "batch_size", "threads", "workers", "device", "cache",
    "manifests", "out", "fresh", "rows", "no_app", "weights_leak_free", "weights_second_source",
    "methods", "runs", "personal_preset", "forget_changed", "eps",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """All commands."""
    listed = "\n".join(f"  {name:10}  {text}" for name, (_, text) in _COMMANDS.items())
    main = argparse.ArgumentParser(
        prog="python -m bench",
        description=DESCRIPTION.format(commands=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add, text) in _COMMANDS.items():
        command = commands.add_parser(
            name, formatter_class=argparse.ArgumentDefaultsHelpFormatter, help=text,
            description=text,
        )  # fmt: skip
        if name not in ("demo", "federation", "pooled", "report", "tables"):
            _common(command, name)
        add(command)
    return main


def root_of(args: argparse.Namespace) -> Path:
    """The data folder. Raises DataError where none is named."""
    root = args.data or default_root()
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return Path(root)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide figures, in order."""
    free = INDIFFERENT | ({"systems"} if getattr(args, "budget", None) else set())
    return {k: v for k, v in sorted(vars(args).items()) if k not in free}


def _common(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    if name != "loso":  # which has several
        add("--protocol", default="multi-source", choices=list(PROTOCOLS), help="split to test on")
        add("--weights", type=Path, default=WEIGHTS, help="folder of weights trained on that split")
    add("--limit", type=int, help="test scans at most, evenly spaced; all of them by default")
    if name in CHOOSING:
        add("--val-limit", type=int, default=240, help="validation scans at most, for choices")
    if name not in ONE_BY_ONE:
        add("--batch-size", type=int, default=32, help="scans at a time; changes the speed alone")
    add("--device", default="auto", help="cpu, cuda or auto")
    _places(command)


def _places(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", type=Path, help="folder of the data sets (or set MEDFEDPURE_DATA)")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to PyTorch")
    add("--cache", type=Path, default=Path(".cache"), help="folder of decoded scans")
    add("--manifests", type=Path, default=MANIFESTS, help="folder of the split manifests")
    add("--out", type=Path, help="result file; named after command and protocol by default")
    add("--fresh", action="store_true", help="forget what the result file holds")


def _robustness(command: argparse.ArgumentParser) -> None:
    _attacks(command, None)
    add = command.add_argument
    add(
        "--budget", choices=list(BUDGETS),
        help="climb the ladder, rows A0 to A11, each on the scans that a system still reads right",
    )  # fmt: skip
    add(
        "--workers", type=int, default=1,
        help="with a budget: batches side by side; with --threads 1 as many as there are cores",
    )  # fmt: skip
    add(
        "--forget-changed", action="store_true",
        help="with a budget: forget rows of systems whose weights have changed; the rest stay",
    )  # fmt: skip
    add("--fold", choices=("test", "val"), default="test", help="val: where choices are made")
    add("--hospital", type=int, help="whose system, where the weights are a federation's")


def _attacks(command: argparse.ArgumentParser, rows: list[str] | None) -> None:
    add = command.add_argument
    add(
        "--rows", type=_names, default=rows, metavar="LIST",
        help="of clean, A0 (brings A0-8bit along), both by default; with a budget of A0 to A11, "
        "all by default, ranges as A1..A6",
    )  # fmt: skip
    add(
        "--systems", type=_names, metavar="LIST",
        help="all by default, of " + ", ".join(s.name for s in SYSTEMS)
        + "; with a budget of " + ", ".join(NAMES),
    )  # fmt: skip
    add("--attack-eps", type=float, default=0.015, help="size of the perturbation, L-inf")


def _loso(command: argparse.ArgumentParser) -> None:
    for protocol in ("leak-free", "second-source"):
        command.add_argument(
            f"--weights-{protocol}", type=Path, default=Path("runs") / f"one-source-{protocol}",
            help=f"folder of weights trained on {protocol!r}",
        )  # fmt: skip
    _attacks(command, ["clean", "A0"])


def _latency(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    command.set_defaults(threads=2)
    add("--repeats", type=int, default=24, help="scans that are timed")
    add("--peer", default="paper", help="preset to compare with, random weights; '' for none")
    add("--peer-repeats", type=int, default=5, help="scans that the peer reads")
    add("--no-app", action="store_true", help="do not start the app")


def _demo(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--visitors", type=int, default=10, help="at once")
    add("--seconds", type=float, default=300.0, help="that they stay")
    add("--shots", type=Path, help="folder for pictures of each tab, dark and light")
    add("--out", type=Path, default=Path("results/demo.json"), help="result file")
    add("--fresh", action="store_true", help="forget what the result file holds")


def _tables(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--table", type=int, choices=(1, 2), default=2, help="of the paper")
    add("--dataset", choices=("br35h", "cifar10"), default="br35h", help="Table I: cifar10 alone")
    add("--setting", choices=("reduced", "paper"), default="reduced", help="paper: on a GPU")
    add(
        "--methods", type=_names, metavar="LIST",
        help="all by default, of " + ", ".join(m.name for m in METHODS),
    )  # fmt: skip
    add("--limit", type=int, default=0, help="test scans a client at most; 0: all")
    add("--lite-limit", type=int, default=12, help="test scans a client at most for A3-lite")
    add("--evasion-limit", type=int, default=6, help="test scans a client for the N x N; 0: none")
    add("--seed", type=int, default=0, help="of the training")
    add("--runs", type=Path, default=Path("runs") / "tables", help="folder of the trainings")
    _places(command)


def _pooled(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--protocol", default="multi-source", choices=list(PROTOCOLS), help="split to test on")
    add("--preset", default="federated", help="that the hospitals trained by: who holds what")
    add("--weights", type=Path, default=WEIGHTS, help="folder of the federation's weights")
    add("--pooled", type=Path, required=True, help="folder of weights trained on pooled scans")
    add("--limit", type=int, default=0, help="test scans a hospital at most; 0: all")
    add("--attack-eps", type=float, default=0.015, help="size of the perturbation, L-inf")
    _places(command)


def _federation(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--rows", type=_names, metavar="LIST",
        help="all by default, of twice, faults, simulation, overhead, payload, scaling, poison, "
        "batch_norm, personal",
    )  # fmt: skip
    add("--protocol", default="leak-free", choices=list(PROTOCOLS), help="of the engine's rows")
    add("--seed", type=int, default=0, help="of the trainings; of 'personal' the first of three")
    add(
        "--personal-preset", default="federation-bench", metavar="NAME",
        help="preset that the row 'personal' trains; another than the default is another row",
    )  # fmt: skip
    add("--runs", type=Path, default=Path("runs") / "federation", help="folder of the trainings")
    _places(command)


def _report(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--results", type=Path, default=Path("results"), help="folder of the result files")
    add(
        "--pages", type=Path, nargs="+", metavar="FILE",
        help="files that hold the markers; by default README.md and docs/federation.md",
    )  # fmt: skip
    add("--check", action="store_true", help="change nothing; exit 1 if anything is out of date")


def _names(text: str) -> list[str]:
    names: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        first, dots, last = name.partition("..")
        if not dots:
            names.append(name)
        elif first in LADDER and last in LADDER and LADDER.index(first) <= LADDER.index(last):
            names += LADDER[LADDER.index(first) : LADDER.index(last) + 1]
        else:
            raise argparse.ArgumentTypeError(f"{name!r} is no range of A0 to A11")
    if not names:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return names


def _certify(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--eps", type=float, default=EPS, help="size of the perturbation, L-inf")
    add("--noises", type=int, default=NOISES, help="noised copies of a scan that bound its radius")
    add("--choose", type=int, default=CHOOSE, help="others that choose its class")
    add("--alpha", type=float, default=ALPHA, help="chance that a certificate is wrong")
    add("--fold", choices=("test", "val"), default="test", help="val: where choices are made")


def _nothing(_: argparse.ArgumentParser) -> None:
    """These commands need the common options alone."""


_COMMANDS = {
    "robustness": (_robustness, "accuracy under attack, all systems side by side"),
    "detection": (_nothing, "AUROC and false alarms of every detector score"),
    "purifier": (_nothing, "energy removed, denoising and accuracy, against filters"),
    "mae": (_nothing, "hidden patches against filling in from visible neighbours"),
    "looks": (_nothing, "lesions behind the purifier, explanations, tumours painted over"),
    "novelty": (_nothing, "'cannot judge': said of scans, and of pictures that are none"),
    "certify": (
        _certify,
        "certified accuracy of the smoothed reader: randomized smoothing at 28 x 28",
    ),
    "loso": (_loso, "leave one source out, both ways"),
    "latency": (_latency, "speed, start of the app and peak memory"),
    "demo": (_demo, "the page in a browser: times, accessibility, ten visitors, memory"),
    "tables": (_tables, "Tables I and II: every method trained on the same clients, and attacked"),
    "pooled": (_pooled, "a federation's weights against those of pooled training"),
    "federation": (
        _federation,
        "the federation engine: same bytes, overhead, payload, N clients, poison, faults",
    ),
    "report": (_report, "draws results/report.html and writes the documents' tables"),
}
