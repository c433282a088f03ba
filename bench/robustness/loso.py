"""Leave one source out, both ways: a system trained on one source reads the other's test fold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import options
from bench.result_file import ResultFile
from bench.robustness.all_scans import evaluate_all
from bench.robustness.attacks import Attacker, paper_rows
from bench.robustness.run import add_attacks
from bench.robustness.systems import ALL_SCANS_SYSTEMS, build_systems
from bench.robustness.tables import loso
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

HELP = "leave one source out, both ways"
TABLES = {"loso": loso}
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
    options.add_validation(parser)
    options.add_batch_size(parser)
    options.add_scans(parser)


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
        measure(
            store, trained_on, opened[trained_on].pipeline, options.open_fold(args, tested_on),
            args.rows, args.systems,
            eps=args.attack_eps, batch_size=args.batch_size,
        )  # fmt: skip
    store.close()


def _of(args: argparse.Namespace, protocol: str, weights: Path) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), "protocol": protocol, "weights": weights})


def measure(
    store: ResultFile,
    trained_on: str,
    pipeline: MedFedPure,
    test: ScanDataset,
    names: Sequence[str],
    systems: Sequence[str] | None,
    *,
    eps: float,
    batch_size: int,
) -> None:
    """Fills `store` with one row per attack for one way; folds keep near-duplicates together."""
    chosen = build_systems(pipeline, systems, tuple(ALL_SCANS_SYSTEMS))
    for attack in paper_rows(names):
        store.row(
            f"{trained_on} on {WAYS[trained_on]}: {attack.key}",
            lambda a=attack: evaluate_all(pipeline, test, a, Attacker(eps), chosen, batch_size),
            systems=[s.name for s in chosen],
        )
