"""The command `pooled`: federated against pooled training on equal presets and scans.

Of the federation, each test scan is classified by the hospital that it belongs to.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.data import hospital_test_scans
from bench.federation.comparison import measure_evasion
from bench.parallel import ParallelBatches
from bench.provenance import machine_facts, weights_facts
from bench.result_file import ResultFile
from bench.robustness.attacks import CLASSIFIER, Attack, attack_titles, paper_rows
from bench.robustness.systems import SYSTEM_TITLES
from bench.robustness.transfer import ClientModel, evaluate_transfer
from bench.summaries import share_by_label
from core import load, metrics
from core.attacks import PGD
from core.checkpoint import WEIGHTS
from core.diffusion import Diffusion
from core.pipeline import MedFedPure
from core.weights import load_all
from train.data.corpus import load_corpus
from train.data.dataset import ScanDataset
from train.data.split import PROTOCOLS as SPLITS
from train.data.split import read_manifest
from train.federated.experiment import read_experiment
from train.phases import diffusion, mae
from train.phases.diffusion import DiffusionConfig

HELP = "a federation's weights against those of pooled training"
KINDS = ("federated", "pooled")
BATCH = 32
TRANSFER_SCANS = 8  # a hospital, attacked by each of the others
T_MAX = 250  # largest diffusion step at which noise is predicted, as in training's validation
SYSTEMS = ("defence", "trained-mixture", "undefended")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--protocol", default="patients", choices=list(SPLITS), help="split to test on")
    add("--preset", default="sites", help="preset of the federation: partition of the scans")
    add("--weights", type=Path, default=WEIGHTS, help="folder of the federation's weights")
    add("--pooled", type=Path, required=True, help="folder of weights trained on pooled scans")
    add("--limit", type=int, default=0, help="largest number of test scans a hospital; 0: all")
    add("--attack-eps", type=float, default=0.015, help="size of the perturbation, L-inf")
    options.add_places(parser)


def run(args: argparse.Namespace) -> None:
    """Measures both trainings on the same test scans."""
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
    scans = hospital_test_scans(
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
    measure(
        store,
        [own[n] for n in sorted(own, key=lambda n: n or 0)],
        load(args.pooled),
        scans,
        args.attack_eps,
    )
    store.close()


def measure(
    store: ResultFile,
    federated: Sequence[MedFedPure],
    pooled: MedFedPure,
    scans: Sequence[ScanDataset],
    eps: float,
) -> None:
    """Measures the rows clean, A0, transfer, mae, diffusion on `scans` of hospitals 1 to N.

    `transfer` is internal evasion (Kim et al. 2023): hospital i attacks scans of hospital j through
    its own classifier, and the whole system of j reads them.
    """
    own, same = list(federated), [pooled] * len(federated)
    for row in paper_rows(["clean", "A0"]):
        store.row(row.key, lambda r=row: _accuracy(own, same, scans, r, eps))
    models = [ClientModel(s.classifier_logits, s.logits, {}) for s in own]
    few = [part.thin(TRANSFER_SCANS, truncate=True) for part in scans]
    store.row("transfer", lambda: measure_evasion(models, few, _transfer(eps)))
    store.row("mae", lambda: _errors(own[0], pooled, scans, _mae_errors))
    store.row("diffusion", lambda: _errors(own[0], pooled, scans, _diffusion_errors))


def _transfer(eps: float) -> Attack:
    attack = PGD(eps, max(eps / 8, 1e-9), 20)
    meaning = "PGD-20 on one hospital's classifier"
    return Attack("A2", "transfer PGD-20", meaning, CLASSIFIER, lambda _: attack)


def _accuracy(
    own: Sequence[MedFedPure],
    same: Sequence[MedFedPure],
    scans: Sequence[ScanDataset],
    row: Attack,
    eps: float,
) -> dict[str, Any]:
    lanes = ParallelBatches(own[0].device, BATCH)
    found: dict[str, Any] = {"meaning": row.meaning, "difference": {}}

    def attack(systems: Sequence[MedFedPure], name: str) -> Tensor:
        pairs = zip((_client_model(s, name) for s in systems), scans, strict=True)
        return torch.cat([evaluate_transfer(row, m, m, part, lanes, eps) for m, part in pairs])

    for name in SYSTEMS:
        right = {"federated": attack(own, name), "pooled": attack(same, name)}
        labels = torch.cat([part.labels for part in scans])
        found[name] = {kind: share_by_label(bits, labels) for kind, bits in right.items()}
        b, c, p = metrics.mcnemar(right["federated"], right["pooled"])
        groups = [group for part in scans for group in part.groups]
        gap = right["federated"].double() - right["pooled"].double()
        found["difference"][name] = {
            "points": 100 * float(gap.mean()),
            "interval_by_group": [
                100 * end for end in metrics.group_bootstrap_interval(gap, groups)
            ],
            "only_federated": b, "only_pooled": c, "p": p,
        }  # fmt: skip
    return found


def _client_model(system: MedFedPure, name: str) -> ClientModel:
    """Returns one of SYSTEMS, whose classifier is attacked."""
    classify = system.plain_logits if name == "undefended" else system.classifier_logits
    whole = system.logits if name == "defence" else lambda x, _: classify(x)
    return ClientModel(classify, whole, {})


def _errors(
    first: MedFedPure, pooled: MedFedPure, scans: Sequence[ScanDataset], errors: Any
) -> Any:
    """Measures errors of both trainings; these networks are equal at all hospitals."""
    every = ScanDataset(
        np.concatenate([part.scans for part in scans]),
        torch.cat([part.labels for part in scans]),
        [cell for part in scans for cell in part.cells],
        [group for part in scans for group in part.groups],
    )
    return {"federated": errors(first, every), "pooled": errors(pooled, every), "n": len(every)}


def _mae_errors(system: MedFedPure, scans: ScanDataset) -> dict[str, float]:
    figures = mae.build_validation(scans, system.device)(system.detector.mae)
    return {name: figures[name] for name in ("random", "lattice")}


def _diffusion_errors(system: MedFedPure, scans: ScanDataset) -> dict[str, float]:
    schedule, config = Diffusion().to(system.device), DiffusionConfig(t_max=T_MAX)
    validate = diffusion.build_validation(scans, schedule, config, system.device)
    figures = validate(system.purifier.noise_pred)
    return {name: value for name, value in figures.items() if name != "score"}


def render(results: md.Results) -> str:
    """Renders accuracies with their difference, and the errors of autoencoder and purifier."""
    parts = []
    for protocol, result in md.results_of(results, "pooled", md.PROTOCOLS).items():
        lines, errors, moved = [], [], ""
        for name, row in result["rows"].items():
            for system, gap in row.get("difference", {}).items():
                low, high = gap["interval_by_group"]
                blocks = [row[system][kind] for kind in KINDS]
                classes = (md.by_class(block.get("recall", {})) for block in blocks)
                lines.append(
                    [
                        attack_titles().get(name, name),
                        SYSTEM_TITLES[system],
                        *map(md.accuracy, blocks),
                        "; ".join(filter(None, classes)),
                        f"{gap['points']:+.1f} [{low:+.1f} to {high:+.1f}]",
                    ]
                )
            if "matrix" in row:
                own, other = (md.percent(row[k]) for k in ("diagonal", "off_diagonal"))
                moved = (
                    f"\n\nA hospital reads {own} % right of its scans when attacked through "
                    f"its own classifier, {other} % when attacked through another hospital's "
                    f"(PGD-20, n = {row['n']}, each attacked by all)."
                )
            elif "difference" not in row:
                both = row["federated"], row["pooled"]
                errors += [[name, key, *(md.number(b[key], 4) for b in both)] for key in both[0]]
        head = ["row", "system", "federated, %", "pooled, %", "tumour / no tumour of each, %",
                "difference, points [95 % by group]"]  # fmt: skip
        text = f"**{protocol}**\n\n{md.table(head, lines)}"
        text += f"\n\n{md.table(['network', 'error', 'federated', 'pooled'], errors)}"
        parts.append(f"{text}{moved}\n\n{md.source(result)}")
    return "\n\n".join(parts)


TABLES = {"pooled": render}
