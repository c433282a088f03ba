"""The command `pooled`: a federation's weights against those of pooled training."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bench import options
from bench.markdown import (
    PROTOCOLS,
    Results,
    accuracy,
    by_class,
    number,
    percent,
    results_of,
    source,
    table,
)
from bench.provenance import machine_facts, weights_facts
from bench.result_file import ResultFile
from bench.robustness.old_tables import SYSTEM_NAMES
from core import load
from core.checkpoint import WEIGHTS
from core.weights import load_all
from train.data.corpus import load_corpus
from train.data.split import PROTOCOLS as SPLITS
from train.data.split import read_manifest

HELP = "a federation's weights against those of pooled training"
KINDS = ("federated", "pooled")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--protocol", default="multi-source", choices=list(SPLITS), help="split to test on")
    add("--preset", default="federated", help="preset of the federation: who holds what")
    add("--weights", type=Path, default=WEIGHTS, help="folder of the federation's weights")
    add("--pooled", type=Path, required=True, help="folder of weights trained on pooled scans")
    add("--limit", type=int, default=0, help="largest number of test scans a hospital; 0: all")
    add("--attack-eps", type=float, default=0.015, help="size of the perturbation, L-inf")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Measures both trainings on the same test scans."""
    from bench.clients import test_scans
    from bench.federation import pooled
    from train.federated.experiment import read_experiment

    manifest, root = read_manifest(args.protocol, args.manifests), options.root_of(args)
    facts = {
        name: weights_facts(folder, manifest)
        for name, folder in (("federated", args.weights), ("pooled", args.pooled))
    }
    own = load_all(args.weights)
    experiment = read_experiment(args.preset, args.protocol, 0)
    if len(own) != experiment.config.partition.num_clients:
        raise ValueError(f"{args.weights} holds {len(own)} systems, not those of {args.preset!r}")
    corpus = load_corpus(args.protocol, root, args.cache, args.manifests)
    scans = test_scans(
        experiment, corpus, root, args.cache, limit=args.limit, manifests=args.manifests
    )
    hashes = {name: f.pop("sha256") for name, f in facts.items()}
    settings = {"limit": args.limit, "eps": args.attack_eps, "preset": args.preset}
    machine = machine_facts(torch.device("cpu"))
    store = ResultFile(
        args.out or Path("results") / f"pooled-{args.protocol}.json", "pooled",
        {"manifest_sha256": manifest.sha256, "weights": hashes, "settings": settings},
        {"weights_facts": facts, "machine": machine}, args.fresh,
    )  # fmt: skip
    pooled.run(store, list(own.values()), load(args.pooled), scans, args.attack_eps)
    store.close()


def pooled(results: Results) -> str:
    """Accuracy side by side with the difference, and the errors of the other two phases."""
    parts = []
    for protocol, result in results_of(results, "pooled", PROTOCOLS).items():
        lines, errors, moved = [], [], ""
        for name, row in result["rows"].items():
            for system, gap in row.get("difference", {}).items():
                low, high = gap["interval_by_group"]
                lines.append(
                    [
                        name,
                        SYSTEM_NAMES[system],
                        *(accuracy(row[system][kind]) for kind in KINDS),
                        "; ".join(
                            filter(
                                None, (by_class(row[system][k].get("recall", {})) for k in KINDS)
                            )
                        ),
                        f"{gap['points']:+.1f} [{low:+.1f} to {high:+.1f}]",
                    ]
                )
            if "matrix" in row:
                own, other = (percent(row[k]) for k in ("diagonal", "off_diagonal"))
                moved = (
                    f"\n\nA hospital reads {own} % right of its scans when attacked through "
                    f"its own classifier, {other} % when attacked through another hospital's "
                    f"(PGD-20, n = {row['n']}, each attacked by all)."
                )
            elif "difference" not in row:
                both = row["federated"], row["pooled"]
                errors += [[name, key, *(number(b[key], 4) for b in both)] for key in both[0]]
        head = ["row", "system", "federated, %", "pooled, %", "tumour / no tumour of each, %",
                "difference, points [95 % by group]"]  # fmt: skip
        text = f"**{protocol}**\n\n{table(head, lines)}"
        text += f"\n\n{table(['network', 'error', 'federated', 'pooled'], errors)}"
        parts.append(f"{text}{moved}\n\n{source(result)}")
    return "\n\n".join(parts)


TABLES = {"pooled": pooled}
