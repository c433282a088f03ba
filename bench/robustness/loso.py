"""Leave one source out, both ways: a system trained on one source reads the other's test fold."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import options
from bench.robustness.all_scans import measure_rows
from bench.robustness.attacks import paper_rows
from bench.robustness.run import add_attacks
from bench.robustness.systems import ALL_SCANS_SYSTEMS, build_systems
from bench.robustness.tables import render_loso

HELP = "leave one source out, both ways"
TABLES = {"loso": render_loso}
# protocol that trained the system -> protocol whose test fold it reads
WAYS = {"leak-free": "second-source", "second-source": "leak-free"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    for protocol in WAYS:
        parser.add_argument(
            f"--weights-{protocol}", type=Path, default=Path("runs") / f"one-source-{protocol}",
            help=f"folder of weights trained on {protocol!r}",
        )  # fmt: skip
    add_attacks(parser, ["clean", "A0"])
    options.add_scans(parser, "--val-limit", "--batch-size")


def run(args: argparse.Namespace) -> None:
    """Measures each system on the other source."""
    folders = {"leak-free": args.weights_leak_free, "second-source": args.weights_second_source}
    opened = {p: options.open_system(_of(args, p, folder)) for p, folder in folders.items()}
    joined = options.OpenSystem(
        opened["leak-free"].pipeline,
        {
            key: {p: system.identity[key] for p, system in opened.items()}
            for key in ("manifest_sha256", "weights")
        },
        {p: system.facts for p, system in opened.items()},
    )
    store = options.open_results(args, joined, Path("results") / "loso.json")
    for trained_on, tested_on in WAYS.items():
        pipeline = opened[trained_on].pipeline
        measure_rows(
            store, pipeline, options.open_fold(args, tested_on), paper_rows(args.rows),
            build_systems(pipeline, args.systems, tuple(ALL_SCANS_SYSTEMS)),
            f"{trained_on} on {tested_on}: ", eps=args.attack_eps, batch_size=args.batch_size,
        )  # fmt: skip
    store.close()


def _of(args: argparse.Namespace, protocol: str, weights: Path) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), "protocol": protocol, "weights": weights})
