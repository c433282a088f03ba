"""What hospitals learn together: poisoned, with other normalisation, with one attention for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.clientapp.typing import ClientAppCallable

from bench.clients import test_scans
from bench.federation.bad_clients import LOUD, altered, noise
from bench.federation.federation_ground import PRESET, Ground
from bench.federation.trainings import Federation
from bench.result_file import Figures
from core import metrics
from train.data.dataset import ScanDataset, batches
from train.device import pick_device
from train.federated.client import client_app
from train.federated.runtime import run

POISONER = 3
FAR, NEAR = 0.55, 3.0  # accuracy that counts as collapsed; points that count as unharmed
SEEDS = 3
BATCH = 50


def poison(ground: Ground) -> Figures:
    """One client of ten sends noise: the mean against the median, beside a run without it."""
    poisoned = altered(noise, POISONER)
    runs: dict[str, tuple[list[str], ClientAppCallable]] = {
        "clean, FedAvg": ([], client_app.app),
        "poisoned, FedAvg": ([], poisoned),
        "poisoned, FedMedian": (["median"], poisoned),
    }
    found = {}
    for name, (methods, app) in runs.items():
        place = ground.places.runs / ("poisoned" if name.startswith("poisoned") else "learning")
        own = ground.under(place).federation(*methods, protocol=ground.learning)
        found[name] = _outcome(own.train(run=partial(run.in_process, app=app)))
    clean, mean, median = (found[name]["last"]["clean"]["mean"] for name in runs)
    return {
        "meaning": f"{ground.learning}: client {POISONER} of ten sends Gaussian noise, {LOUD:g} "
        "times as large as its tensors; clean validation accuracy after the last round",
        "must": f"FedAvg falls to {FAR:.0%} or below, FedMedian stays within {NEAR:g} points",
        "met": mean <= FAR and 100 * (clean - median) <= NEAR,
        "lost_points": {"FedAvg": 100 * (clean - mean), "FedMedian": 100 * (clean - median)},
        "runs": found,
    }


def batch_norm(ground: Ground) -> Figures:
    """What of normalisation travels: all of it, its weights, nothing."""
    kinds = {
        "shared, no momentum": ["shared-norm"],
        "silo, no momentum": ["no-momentum"],
        "silo": [],
        "local": ["local-norm"],
    }
    found = {}
    for kind, methods in kinds.items():
        here = ground.under(ground.places.runs / "learning")
        own = here.federation(*methods, protocol=ground.learning)
        found[kind] = _outcome(own.train())
    return {
        "meaning": f"{ground.learning}: statistics and weights of batch-norm averaged (shared; "
        "with momentum of the server variances could become negative), weights alone (silo), "
        "neither (local); validation after the last round",
        "must": "",
        "met": None,
        "runs": found,
    }


def personal(ground: Ground, preset: str = PRESET, count: int = SEEDS) -> Figures:
    """Each client's own attention against one for all: hospitals of one source each."""
    found: dict[str, Any] = {}
    seeds = range(ground.seed, ground.seed + count)
    for name, methods in (("personal", []), ("shared", ["all-shared"])):
        here = ground.under(ground.places.runs / "learning")
        found[name] = [
            _tested(
                here.federation(
                    "by-source", *methods, protocol=ground.learning, seed=seed, preset=preset
                )
            )
            for seed in seeds
        ]
    return {
        "meaning": "clean accuracy of each client's own model: its attention its own, or averaged "
        "with the rest; by source, mean over seeds and clients; interval: clients drawn with "
        "replacement, each with all its seeds",
        "must": "",
        "met": None,
        "preset": preset,
        "seeds": list(seeds),
        "systems": {name: _spread(runs) for name, runs in found.items()},
        "differences": compare(found["personal"], found["shared"]),
        "runs": found,
    }


def compare(own: Sequence[Figures], one: Sequence[Figures]) -> Figures:
    """Differences in points, paired by seed and client, and their mean's interval."""
    found = {}
    for fold in ("validation", "test"):
        pairs = [
            (100 * (mine - theirs), client)
            for a, b in zip(own, one, strict=True)
            for client, (mine, theirs) in enumerate(zip(a[fold], b[fold], strict=True))
        ]
        points = torch.tensor([point for point, _ in pairs])
        interval = metrics.group_bootstrap_interval(points, [client for _, client in pairs])
        found[fold] = {"points": float(points.mean()), "interval": interval}
    return found


def accuracy(model: torch.nn.Module, scans: ScanDataset) -> float:
    """Share of scans that a model reads right."""
    right = 0
    for rows in batches(len(scans), BATCH):
        x, y = scans.batch(rows, pick_device())
        with torch.no_grad():
            right += int((model(x).argmax(1) == y).sum())
    return right / len(scans)


def _tested(own: Federation) -> Figures:
    """Accuracy by client on validation and test scans, with the best round's model."""
    training, p = own.train(), own.places
    models, hospitals = own.models(), own.hospitals()
    scans = test_scans(own.experiment, own.corpus, p.data, p.cache, manifests=p.manifests)
    return {
        "best_round": training["best_round"],
        "validation": [accuracy(m, h.corpus.val) for m, h in zip(models, hospitals, strict=True)],
        "test": [accuracy(m, part) for m, part in zip(models, scans, strict=True)],
        "n": [len(part) for part in scans],
    }


def _outcome(training: dict[str, Any]) -> Figures:
    """Validation figures of the last round and of the best, over clients."""
    keys = ("mean", "worst")
    last = training["rounds"][-1]["summary"]
    best = training["final"]["summary"]
    return {
        "best_round": training["best_round"],
        "last": {name: {k: last[name][k] for k in keys} for name in ("clean", "pgd")},
        "best": {name: {k: best[name][k] for k in keys} for name in ("clean", "pgd")},
    }


def _spread(runs: Sequence[Figures]) -> Figures:
    """Mean over seeds of the clients' mean and of the worst client."""
    return {
        fold: {
            "mean": float(np.mean([run[fold] for run in runs])),
            "worst": float(np.mean([min(run[fold]) for run in runs])),
        }
        for fold in ("validation", "test")
    }
