"""`python -m train federated`: one experiment, in this process or on one of Flower's engines."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from core.checkpoint import WeightsError
from train.config import PresetError, preset_names, read_preset
from train.data import split
from train.data.corpus import PROTOCOLS
from train.data.sources import DataError, default_root
from train.federated.experiment import Experiment
from train.recipes import ALL_FILES, FILES, OPTIONAL_FILES, phases_of

ALL = "all"
RUNTIMES = ("in-process", "simulation", "deployment")
# Flower asks its maker's servers about updates and tells them of runs, unless it is told not to
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def main(argv: list[str]) -> int:
    """Runs the command line.

    Returns:
        0 when every round was aggregated, 1 when one was skipped or the federation broke off,
        2 with a sentence where input or disk are at fault, 130 when stopped.
    """
    args = _parser().parse_args(argv)
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        from train.federated.runtime import run
        from train.federated.server.server_app import FederationError
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is missing: pip install '.[federated]'", file=sys.stderr)
        return 2
    logging.getLogger("flwr").setLevel(logging.WARNING)
    try:
        settings, skipped, preset = _settings(args), [], read_preset(args.preset)
        phases = phases_of(preset) if args.phase == ALL else [args.phase]
        for phase in phases:
            Experiment(preset, args.protocol, args.seed, phase)  # refused before anything starts
        for phase in phases:
            own = {**settings, "phase": phase, "out": str(Path(settings["out"]) / phase)}
            skipped += [f"{n} of {phase}" for n in run.RUN[args.runtime](own)]
    except FederationError as error:
        print(f"error: {error}; --resume goes on from the last round", file=sys.stderr)
        return 1
    except (DataError, PresetError, WeightsError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on", file=sys.stderr)
        return 130
    if skipped:
        print(f"error: skipped rounds: {', '.join(skipped)}; the others count", file=sys.stderr)
        return 1
    print(f"written to {settings['out']}", file=sys.stderr)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The run's settings as the apps read them: words, numbers and absolute paths."""
    root = args.data or default_root()
    if root is None and args.runtime != "deployment":
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    name = Path(args.preset).name.replace(".toml", "")
    out = (args.out or Path("runs") / f"{name}-{args.protocol}-federated").resolve()
    return {
        "preset": _absolute(args.preset),
        "protocol": args.protocol,
        "seed": args.seed,
        "out": str(out),
        "resume": args.resume,
        "data": str(root.resolve()) if root else "",
        "cache": str(args.cache.resolve()),
        "state": str(out / "clients"),
        "manifests": str(split.MANIFESTS.resolve()),
        "superlink": args.superlink,
        "defence": str(args.defence.resolve()) if args.defence else "",
        "start": str(args.start.resolve()) if args.start else "",
    }


def _absolute(preset: str) -> str:
    """Return an absolute path for a file's name; other names stay as they are."""
    base, *methods = preset.split("+")
    base = str(Path(base).resolve()) if base.endswith(".toml") else base
    return "+".join([base, *methods])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train federated",
        description="Hospitals train together: networks are averaged, attention and scans stay.",
        epilog="Ctrl-C or SIGTERM stop between two clients; --resume goes on from the last round.\n"
        "Exit code 0: every round was aggregated; 1: one was not; 2: the input was at fault.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "phase",
        nargs="?",
        default="mixture",
        choices=[*ALL_FILES, ALL],
        metavar="PHASE",
        help=f"{', '.join(FILES)}, or {ALL} of them in turn (default: mixture); optional: "
        f"{', '.join(OPTIONAL_FILES)}",
    )
    parser.add_argument(
        "--preset", default="federated", metavar="NAME", help=", ".join(preset_names())
    )
    parser.add_argument("--protocol", default="multi-source", choices=PROTOCOLS)
    parser.add_argument(
        "--runtime", default="in-process", choices=RUNTIMES, help="default: in-process"
    )
    parser.add_argument(
        "--superlink",
        default="loopback",
        metavar="NAME",
        help="deployment: a connection in Flower's config.toml; 'loopback' starts one here",
    )
    parser.add_argument("--data", type=Path, help="data folder (default: MEDFEDPURE_DATA)")
    parser.add_argument("--out", type=Path, help="default: runs/PRESET-PROTOCOL-federated")
    parser.add_argument(
        "--defence",
        type=Path,
        metavar="DIR",
        help="trained weights to purify flagged training scans with, where the preset says so",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="weights whose networks, and hospitals' own attention, the first round starts from",
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="default: .cache")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads")
    parser.add_argument("--resume", action="store_true", help="goes on after the last round")
    return parser
