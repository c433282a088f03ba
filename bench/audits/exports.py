"""The command `exports`: what an exported hospital file tells of the scans that it was made of.

Members are the scans that a figure was made of: a hospital's validation scans for the detector's
scores, the training scans that its normalisation statistics were measured on. Others are test scans
of the same site, from which no hospital learned. A scan is compared with what the file stores, as
it is published: statistics that are mixed with those of other hospitals are not taken apart.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import markdown as md
from bench import options
from bench.intervals import draw_auroc, draw_units, find_interval
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.unseen.hospitals import deal
from core import metrics
from core.detector import SCORES
from core.pipeline import MedFedPure
from core.weights import Systems, load_all
from train.data.dataset import ScanDataset, space_evenly
from train.data.partition import PartitionConfig
from train.data.split import Manifest, read_manifest
from train.federated.client.batch_norm import BN_SCANS_EVAL

HELP = "what an exported hospital file tells of its scans: scores and normalisation statistics"
EXACT = 1e-4  # of a score: more than the difference between batches
FEWEST = 5  # patients or groups on each side, from which on there is an interval
MOST = 0.55  # AUC of an exact match at every hospital
EACH = 100  # training scans and others of a hospital, evenly spaced
FOLDS = {"scores": "val", "statistics": "train"}  # that an exported figure was made of


class Site(NamedTuple):
    """Scans of one hospital: members of a figure, and others of the same site."""

    members: ScanDataset
    others: ScanDataset


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size")
    parser.add_argument(
        "--each", type=int, default=EACH, help="scans of a hospital in each group, evenly spaced"
    )


def run(args: argparse.Namespace) -> None:
    """Measures every hospital of the weights."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    manifest, systems = read_manifest(args.protocol, args.manifests), load_all(args.weights, "cpu")
    others = options.open_fold(args, "test")
    for figure, fold in FOLDS.items():
        members = options.open_fold(args, fold)
        sites = select_sites(systems, manifest, members, others, args.each, figure)
        measure(store, figure, sites, systems, args.batch_size)
    store.close()


def select_sites(
    systems: Systems,
    manifest: Manifest,
    members: ScanDataset,
    others: ScanDataset,
    each: int,
    figure: str,
) -> dict[int, Site]:
    """Select scans of each hospital, where it has any of both: members all that `figure` is of."""
    first = next(iter(systems.values()))
    config = PartitionConfig.from_dict(first.info["federated"])
    homes = [deal(config, fold, manifest) for fold in (members, others)]
    found = {}
    for number in (n for n in systems if n is not None):
        own, near = ([i for i, home in enumerate(part) if home == number] for part in homes)
        if not own or not near:
            continue
        if figure == "statistics":  # see `train.federated.norms`
            measured = [own[i] for i in space_evenly(len(own), BN_SCANS_EVAL, truncate=True)]
            own = [measured[i] for i in space_evenly(len(measured), each)]
        near = [near[i] for i in space_evenly(len(near), each)]
        found[number] = Site(members.pick(own), others.pick(near))
    return found


def measure(
    store: ResultFile,
    figure: str,
    sites: dict[int, Site],
    systems: Systems,
    batch_size: int,
) -> None:
    """Fills `store`: a row a hospital and figure."""
    for number, site in sites.items():
        if figure == "scores":
            store.row(
                f"scores, hospital {number}",
                lambda n=number, s=site: measure_scores(systems[n], s, batch_size, f"scores {n}"),
            )
        else:
            store.row(
                f"statistics, hospital {number}",
                lambda n=number, s=site: measure_statistics(systems, n, s, batch_size),
            )


@torch.no_grad()
def measure_scores(
    system: MedFedPure, site: Site, batch_size: int, label: str = "scores"
) -> dict[str, Any]:
    """Measure how well a stored score tells members: AUC of exact matches, and of nearness."""
    detector, found = system.detector, {}
    read = {
        name: [detector(batch.x).scores for batch in _batches(part, batch_size, label)]
        for name, part in site._asdict().items()
    }
    for row, score in enumerate(SCORES):
        values = torch.cat([detector.thresholds[row], detector.quantiles[row]])
        gaps = [
            (torch.cat([scores[score] for scores in read[name]])[:, None] - values).abs().amin(1)
            for name in site._fields
        ]
        exact = [(part < EXACT).double() for part in gaps]
        found[score] = {
            "exact": summarize(exact[0], exact[1], site),
            "near": summarize(-gaps[0], -gaps[1], site),
            "matched": int(exact[0].sum()),
        }
    return {"members": len(site.members), "others": len(site.others), "figures": found}


@torch.no_grad()
def measure_statistics(
    systems: Systems, number: int, site: Site, batch_size: int
) -> dict[str, Any]:
    """Measure what the stored means of normalisation tell: members, and whose file it is.

    A scan's distance to a file is that of its own means, layer by layer, in standard deviations.
    """
    distances = {
        other: [
            measure_distances(system.classifier.model, part, batch_size, f"{number} at {other}")
            for part in site
        ]
        for other, system in systems.items()
    }
    own = distances[number]
    beside = [torch.stack([d[i] for d in distances.values()]).mean(0) for i in (0, 1)]
    nearest = torch.stack([d[1] for d in distances.values()]).argmin(0)
    named = nearest == list(distances).index(number)
    return {
        "members": len(site.members), "others": len(site.others),
        "figures": {
            "distance": summarize(-own[0], -own[1], site),
            "distance, others' files subtracted": summarize(
                beside[0] - own[0], beside[1] - own[1], site
            ),
        },
        "hospital_named": {"k": int(named.sum()), "n": len(named), "hospitals": len(systems)},
    }  # fmt: skip


def measure_distances(model: nn.Module, part: ScanDataset, batch_size: int, label: str) -> Tensor:
    """Compute each scan's distance (N,) to the running means of a network's layers."""
    sums: list[Tensor] = []

    def look(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None and norm.running_var is not None
        gap = inputs[0].mean((2, 3)) - norm.running_mean
        sums.append((gap.square() / (norm.running_var + norm.eps)).mean(1))

    handles = [
        m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, _BatchNorm)
    ]
    found = []
    try:
        for batch in _batches(part, batch_size, label):
            sums.clear()
            model(batch.x)
            found.append(torch.stack(sums).mean(0).sqrt())
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(found)


def summarize(members: Tensor, others: Tensor, site: Site) -> dict[str, Any]:
    """Compute the AUC of a score, larger for members, with its interval by patient or group."""
    score = torch.cat([members, others]).double()
    y = (torch.arange(len(score)) < len(members)).long()
    # members' and others' patients differ, so that a number may stand for one of each
    units = [*site.members.groups, *(-1 - group for group in site.others.groups)]
    few = min(len(set(part.groups)) for part in site) < FEWEST
    return {
        "auc": metrics.auroc(score, y),
        "interval": None if few else find_interval(draw_auroc(draw_units(units), score, y)),
        "tpr_at_1": metrics.tpr_at_fpr(score, y, 0.01),
    }


def _batches(part: ScanDataset, size: int, label: str) -> Any:
    return progress(part.batches(size, torch.device("cpu")), label)


def table(results: md.Results) -> str:
    """Renders each figure: the mean over hospitals, and the hospital where it tells most."""
    parts = []
    for result in md.results_of(results, "exports", md.PROTOCOLS).values():
        lines = []
        for name, rows in _collect(result["rows"]).items():
            aucs = {number: figures["auc"] for number, figures in rows.items()}
            worst = max(aucs, key=lambda n: aucs[n])
            ends = rows[worst]["interval"]  # None of few patients
            interval = f" [{ends[0]:.3f} to {ends[1]:.3f}]" if ends else ""
            lines.append([
                name, f"{sum(aucs.values()) / len(aucs):.3f}",
                f"{aucs[worst]:.3f}{interval} (hospital {worst})",
                md.percent(max(f["tpr_at_1"] for f in rows.values())),
                f"{MOST}" if name.endswith("exact match") else "",
            ])  # fmt: skip
        named = [r["hospital_named"] for r in result["rows"].values() if "hospital_named" in r]
        k, n = (sum(part[key] for part in named) for key in ("k", "n"))
        head = ["what is compared", "AUC, mean over hospitals", "AUC, highest [95 %]",
                "members named at 1 % false, highest, %", "at most"]  # fmt: skip
        text = (
            f"The file whose statistics are nearest is that of a test scan's own hospital for {k} "
            f"of {n} ({md.percent(k / n)} %; one in {named[0]['hospitals']} by chance). "
            if named else ""
        )  # fmt: skip
        parts.append(f"{md.table(head, lines)}\n\n{text}{md.source(result)}")
    return "\n\n".join(parts)


def _collect(rows: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Collect the figures by what is compared and by hospital."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row, content in rows.items():
        kind, _, number = row.partition(", hospital ")
        for name, figures in content["figures"].items():
            if kind == "scores":
                for way, words in (("exact", "exact match"), ("near", "nearness")):
                    found.setdefault(f"score '{name}', {words}", {})[number] = figures[way]
            else:
                found.setdefault(f"normalisation, {name}", {})[number] = figures
    return found
