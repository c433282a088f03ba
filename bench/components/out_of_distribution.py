"""Out-of-distribution head: share of scans and of other images that it refuses to judge."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.components.non_brain_phantoms import KINDS, phantom_of
from bench.parallel import progress
from bench.result_file import ResultFile
from core import metrics
from core.attacks import paper_attack
from core.pipeline import MedFedPure
from core.scan import SIZE, from_uint8
from train.data.cifar import read_cifar
from train.data.dataset import ScanDataset, space_evenly

HELP = "'cannot judge': share of scans and of images that are no brain MRI"
PHOTOGRAPHS, PHANTOMS = 500, 200


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size")


def run(args: argparse.Namespace) -> None:
    """Measures the out-of-distribution head."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    photographs = read_cifar(options.root_of(args), args.cache).test
    test = options.open_fold(args)
    measure(store, system.pipeline, test, photographs, batch_size=args.batch_size)
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    photographs: np.ndarray,
    attacked: int = 240,
    batch_size: int = 32,
) -> None:
    """Fills `store`; `photographs` are CIFAR-10's test images (N, 3, 32, 32) uint8."""
    thin = test.thin(attacked)
    chosen = space_evenly(len(photographs), PHOTOGRAPHS)
    share = partial(measure_refusals, pipeline, batch_size=batch_size)
    store.row("test scans", lambda: share(test.scans, test.groups))
    store.row(
        "test scans under A0, 8 bits",
        lambda: share(_attack(pipeline, thin, batch_size), thin.groups),
    )
    images = np.stack([_to_grey(photographs[i]) for i in chosen])
    store.row("grey CIFAR-10 pictures", lambda: share(images))
    phantoms = np.stack([phantom_of(seed) for seed in range(PHANTOMS)])
    row = store.row("phantoms", lambda: measure_by_kind(pipeline, phantoms, batch_size))
    if row["refused"] < 0.95:
        store.warn("phantoms of other organs or noise: fewer than 95 % refused")


def measure_refusals(
    pipeline: MedFedPure, scans: np.ndarray, groups: list[int] | None = None, batch_size: int = 32
) -> dict[str, Any]:
    """Returns the share of images (N, 224, 224) uint8 that are refused, with intervals."""
    novelty = score_novelty(pipeline, scans, batch_size)
    far = (novelty > pipeline.novelty.limit.cpu()).double()
    figures = {
        "refused": float(far.mean()),
        "k": int(far.sum()),
        "n": len(far),
        "interval": list(metrics.wilson_interval(int(far.sum()), len(far))),
        "limit": float(pipeline.novelty.limit),
        "quantiles": {q: float(novelty.quantile(float(q))) for q in ("0.05", "0.5", "0.95")},
    }
    if groups is not None:
        figures["group_interval"] = list(metrics.group_bootstrap_interval(far, groups))
    return figures


def measure_by_kind(pipeline: MedFedPure, phantoms: np.ndarray, batch_size: int) -> dict[str, Any]:
    """Returns the share that is refused of all phantoms, and of each kind."""
    share = partial(measure_refusals, pipeline, batch_size=batch_size)
    kinds = {kind: share(phantoms[k :: len(KINDS)])["refused"] for k, kind in enumerate(KINDS)}
    return {**share(phantoms), "kinds": kinds}


@torch.no_grad()
def score_novelty(pipeline: MedFedPure, scans: np.ndarray, batch_size: int) -> Tensor:
    """Returns novelty (N,) float32 on the CPU."""
    parts = []
    for start in progress(range(0, len(scans), batch_size), "novelty"):
        x = from_uint8(scans[start : start + batch_size])[:, None].to(pipeline.device)
        parts.append(pipeline.measure_novelty(x).cpu())
    return torch.cat(parts)


def _attack(pipeline: MedFedPure, fold: ScanDataset, batch_size: int) -> np.ndarray:
    """Returns scans under the paper's PGD-7 on the mixture, in 8 bits, (N, 224, 224) uint8."""
    attack, parts = paper_attack(eight_bit=True), []
    for x, y, seeds in progress(fold.batches(batch_size, pipeline.device), "attack"):
        x_adv = attack(pipeline.classifier_logits, x, y, seeds)
        parts.append((x_adv[:, 0] * 255).round().byte().cpu().numpy())
    return np.concatenate(parts)


def _to_grey(picture: np.ndarray) -> np.ndarray:
    """Turns a colour image (3, 32, 32) uint8 into grey (224, 224)."""
    grey = Image.fromarray(picture.transpose(1, 2, 0)).convert("L")
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def table(results: md.Results) -> str:
    """Renders the shares that are refused."""
    parts = []
    for result in md.results_of(results, "novelty", md.PROTOCOLS).values():
        lines = []
        for name, row in result["rows"].items():
            by_group = None if row["k"] in (0, row["n"]) else row.get("group_interval")
            low, high = by_group or row["interval"]  # of none or all, resampling cannot tell
            share = f"{md.percent(row['refused'])} [{md.percent(low)} to {md.percent(high)}]"
            lines.append([name.replace("A0", "PGD-7"), share, f"{row['k']}/{row['n']}"])
        head = ["images", "'cannot judge', % [95 %]", ""]
        parts.append(f"{md.table(head, lines)}\n\n{md.source(result)}")
    return "\n\n".join(parts)
