"""Rows on what hospitals learn: a poisoning client, batch-norm, personal or shared attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from bench.data import hospital_test_scans
from bench.federation.trainings import PRESET, Federation, FederationFixture
from bench.result_file import Figures
from core import metrics
from train.data.dataset import ScanDataset, batches
from train.device import pick_device
from train.federated.client import client_app
from train.federated.runtime import run
from train.federated.serialization import pack

Tensors = dict[str, Tensor]
ChangeFn = Callable[[Tensors, int], Tensors]  # of trained tensors and the round
POISONER = 3
NOISE_FACTOR = 10.0  # root mean square of the poisoner's noise by that of the tensor
COLLAPSE_ACCURACY = 0.55
MAX_LOST_POINTS = 3.0  # of a robust mean
SEED_COUNT = 3
BATCH = 50


def measure_poisoning(fixture: FederationFixture) -> Figures:
    """Trains with one client of ten sending noise, averaged by mean and by median, and without."""
    poisoned = alter_replies(make_noise, POISONER)
    runs: dict[str, tuple[list[str], ClientAppCallable]] = {
        "clean, FedAvg": ([], client_app.app),
        "poisoned, FedAvg": ([], poisoned),
        "poisoned, FedMedian": (["median"], poisoned),
    }
    found = {}
    for name, (methods, app) in runs.items():
        place = fixture.places.runs / ("poisoned" if name.startswith("poisoned") else "learning")
        own = fixture.with_runs(place).build(*methods, protocol=fixture.learning)
        found[name] = _summarize(own.train(run=partial(run.run_in_process, app=app)))
    clean, mean, median = (found[name]["last"]["clean"]["mean"] for name in runs)
    return {
        "meaning": f"{fixture.learning}: client {POISONER} of ten sends Gaussian noise, "
        f"{NOISE_FACTOR:g} times as large as its tensors; clean validation accuracy after the last "
        "round",
        "must": f"FedAvg falls to {COLLAPSE_ACCURACY:.0%} or below, FedMedian stays within "
        f"{MAX_LOST_POINTS:g} points",
        "met": mean <= COLLAPSE_ACCURACY and 100 * (clean - median) <= MAX_LOST_POINTS,
        "lost_points": {"FedAvg": 100 * (clean - mean), "FedMedian": 100 * (clean - median)},
        "runs": found,
    }


def measure_batch_norm(fixture: FederationFixture) -> Figures:
    """Trains with batch-norm shared, shared but for its statistics (silo), and local."""
    kinds = {
        "shared, no momentum": ["shared-norm"],
        "silo, no momentum": ["no-momentum"],
        "silo": [],
        "local": ["local-norm"],
    }
    found = {}
    for kind, methods in kinds.items():
        here = fixture.with_runs(fixture.places.runs / "learning")
        own = here.build(*methods, protocol=fixture.learning)
        found[kind] = _summarize(own.train())
    return {
        "meaning": f"{fixture.learning}: statistics and weights of batch-norm averaged (shared; "
        "with momentum of the server variances could become negative), weights alone (silo), "
        "neither (local); validation after the last round",
        "must": "",
        "met": None,
        "runs": found,
    }


def measure_personal_attention(
    fixture: FederationFixture, preset: str = PRESET, count: int = SEED_COUNT
) -> Figures:
    """Compares personal with averaged attention, at hospitals by site."""
    found: dict[str, Any] = {}
    seeds = range(fixture.seed, fixture.seed + count)
    for name, methods in (("personal", []), ("shared", ["all-shared"])):
        build = partial(
            fixture.with_runs(fixture.places.runs / "learning").build, "by-site", *methods,
            protocol=fixture.learning, preset=preset,
        )  # fmt: skip
        found[name] = [_test(build(seed=seed)) for seed in seeds]
    return {
        "meaning": "clean accuracy of each client's own model: its attention its own, or averaged "
        "with the rest; by site, mean over seeds and clients; interval: clients drawn with "
        "replacement, each with all its seeds",
        "must": "",
        "met": None,
        "preset": preset,
        "seeds": list(seeds),
        "systems": {name: _summarize_seeds(runs) for name, runs in found.items()},
        "differences": compare_paired(found["personal"], found["shared"]),
        "runs": found,
    }


def alter_replies(change: ChangeFn, client: int, only: int = 0) -> ClientAppCallable:
    """Returns the app in which `client` sends changed tensors, in all rounds or in one."""

    def app(message: Message, context: Context) -> Message:
        reply: Message = client_app.app(message, context)
        is_altered = context.node_config["partition-id"] == client and reply.has_content()
        if not is_altered or message.metadata.message_type != "train":
            return reply
        round_index = int(str(message.content.config_records["config"]["round"]))
        if round_index == only or not only:
            arrays = reply.content.array_records["arrays"]
            learned = {name: torch.from_numpy(a.numpy().copy()) for name, a in arrays.items()}
            reply.content["arrays"] = pack(change(learned, round_index))
        return reply

    return app


def make_noise(tensors: Tensors, round_index: int) -> Tensors:
    """Returns Gaussian noise `NOISE_FACTOR` times as large as each tensor (root mean square)."""
    generator = torch.Generator().manual_seed(round_index)
    return {
        name: NOISE_FACTOR * t.square().mean().sqrt() * torch.randn(t.shape, generator=generator)
        for name, t in tensors.items()
    }


def compare_paired(own: Sequence[Figures], one: Sequence[Figures]) -> Figures:
    """Returns the mean difference in points, paired by seed and client, with its interval."""
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


def measure_accuracy(model: torch.nn.Module, scans: ScanDataset) -> float:
    """Returns the share of scans that a model classifies correctly."""
    right = 0
    for rows in batches(len(scans), BATCH):
        x, y = scans.batch(rows, pick_device())
        with torch.no_grad():
            right += int((model(x).argmax(1) == y).sum())
    return right / len(scans)


def _test(own: Federation) -> Figures:
    """Measures accuracy by client on validation and test scans, with the best round's model."""
    training, p = own.train(), own.places
    models, hospitals = own.load_models(), own.build_hospitals()
    scans = hospital_test_scans(own.experiment, own.corpus, p.data, p.cache, manifests=p.manifests)
    return {
        "best_round": training["best_round"],
        "validation": [
            measure_accuracy(m, h.corpus.val) for m, h in zip(models, hospitals, strict=True)
        ],
        "test": [measure_accuracy(m, part) for m, part in zip(models, scans, strict=True)],
        "n": [len(part) for part in scans],
    }


def _summarize(training: dict[str, Any]) -> Figures:
    """Summarizes validation figures of the last round and of the best, over clients."""
    keys = ("mean", "worst")
    last = training["rounds"][-1]["summary"]
    best = training["final"]["summary"]
    return {
        "best_round": training["best_round"],
        "last": {name: {k: last[name][k] for k in keys} for name in ("clean", "pgd")},
        "best": {name: {k: best[name][k] for k in keys} for name in ("clean", "pgd")},
    }


def _summarize_seeds(runs: Sequence[Figures]) -> Figures:
    """Averages the clients' mean and the worst client over seeds."""
    return {
        fold: {
            "mean": float(np.mean([run[fold] for run in runs])),
            "worst": float(np.mean([min(run[fold]) for run in runs])),
        }
        for fold in ("validation", "test")
    }
