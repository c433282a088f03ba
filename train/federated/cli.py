"""Federated training: `python -m train federated`, in this process or on a Flower engine."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from core.checkpoint import WeightsError
from train.config import PresetError, list_presets, read_preset
from train.data import split
from train.data.corpus import PROTOCOLS
from train.data.errors import DataError
from train.data.sources import find_data_root
from train.federated.experiment import Experiment, FederationError
from train.federated.runtime.superlink import NO_TELEMETRY
from train.recipes import ALL_FILES, FILES, OPTIONAL_FILES, list_phases

ALL = "all"
RUNTIMES = ("in-process", "simulation", "deployment")


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        0 if every round was aggregated, 1 if one was skipped or the federation stopped early,
        2 with one sentence if input or disk are at fault, 130 when stopped.
    """
    args = _build_parser().parse_args(argv)
    os.environ.update({name: os.environ.get(name, value) for name, value in NO_TELEMETRY.items()})
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        from train.federated.runtime import run
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is missing: pip install '.[federated]'", file=sys.stderr)
        return 2
    logging.getLogger("flwr").setLevel(logging.WARNING)
    try:
        settings, skipped, preset = _build_settings(args), [], read_preset(args.preset)
        phases = list_phases(preset) if args.phase == ALL else [args.phase]
        for phase in phases:
            Experiment(
                preset, args.protocol, args.seed, phase
            )  # checks all phases before the first starts
        for phase in phases:
            phase_settings = {**settings, "phase": phase, "out": str(Path(settings["out"]) / phase)}
            skipped += [f"{n} of {phase}" for n in run.RUNNERS[args.runtime](phase_settings)]
    except FederationError as error:
        print(f"error: {error}; --resume continues after the last round", file=sys.stderr)
        return 1
    except (DataError, PresetError, WeightsError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume continues", file=sys.stderr)
        return 130
    if skipped:
        print(
            f"error: skipped rounds: {', '.join(skipped)}; all others were aggregated",
            file=sys.stderr,
        )
        return 1
    print(f"written to {settings['out']}", file=sys.stderr)
    return 0


def _build_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the run's settings for the apps: strings, numbers and absolute paths."""
    root = args.data or find_data_root()
    if root is None and args.runtime != "deployment":
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    name = Path(args.preset).name.replace(".toml", "")
    out = (args.out or Path("runs") / f"{name}-{args.protocol}-federated").resolve()
    return {
        "preset": _resolve_preset(args.preset),
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


def _resolve_preset(preset: str) -> str:
    """Return a preset's file as an absolute path; preset names are not changed."""
    base, *methods = preset.split("+")
    base = str(Path(base).resolve()) if base.endswith(".toml") else base
    return "+".join([base, *methods])


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train federated",
        description="Train networks among hospitals: they send networks, which are averaged;\n"
        "attention and scans stay local.",
        epilog="Ctrl-C or SIGTERM stop between two clients; --resume continues the rounds.\n"
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
    parser.add_argument("--preset", default="sites", metavar="NAME", help=", ".join(list_presets()))
    parser.add_argument("--protocol", default="patients", choices=PROTOCOLS)
    parser.add_argument(
        "--runtime", default="in-process", choices=RUNTIMES, help="default: in-process"
    )
    parser.add_argument(
        "--superlink",
        default="loopback",
        metavar="NAME",
        help="deployment: a connection in Flower's config.toml; 'loopback' starts a server here",
    )
    parser.add_argument("--data", type=Path, help="data folder (default: MEDFEDPURE_DATA)")
    parser.add_argument("--out", type=Path, help="default: runs/PRESET-PROTOCOL-federated")
    parser.add_argument(
        "--defence",
        type=Path,
        metavar="DIR",
        help="weights that purify flagged training scans (Algorithm 3), if the preset sets purify",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="DIR",
        help="weights to start from: networks, and each hospital's own attention",
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="default: .cache")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads")
    parser.add_argument(
        "--resume", action="store_true", help="continue after the last finished round"
    )
    return parser
