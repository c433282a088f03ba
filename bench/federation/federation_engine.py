"""What the engine adds to training: the same bytes twice, the same on Ray, and how little time."""

from __future__ import annotations

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from bench.federation.federation_ground import SHORT, Ground, differing, digests
from bench.federation.trainings import Federation
from bench.result_file import Figures
from train.data.corpus import load_corpus
from train.federated import metrics, state_file
from train.federated.cli import QUIET
from train.federated.client.hospital import Hospital
from train.federated.experiment import Experiment
from train.federated.runtime import run
from train.federated.server.run_state import STATE
from train.federated.server.strategies import RunningMean

T = TypeVar("T")
REPEATS = 5
MOST_POINTS, MOST_OVERHEAD = 1.0, 1.10
# all scans of three hospitals: accuracy counts them, and what a message costs is seen beside what a
# hospital does
THREE = """
num_rounds = 2
eval_every = 1
min_clients = 2
[federated.partition]
num_clients = 3
"""


def twice(ground: Ground) -> Figures:
    """The same run twice, in folders of their own: sha256 of every file."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (
            ground.under(Path(folder) / name).federation(changes=SHORT) for name in ("a", "b")
        )
        first.train()
        second.train()
        files, different = len(digests(first.out)), differing(first.out, second.out)
    return {
        "meaning": "two runs of the same settings: files that they leave, but for the log of times",
        "must": "the same bytes",
        "met": not different,
        "files": files,
        "different": different,
    }


def simulation(ground: Ground) -> Figures:
    """The same seed on Flower's simulation engine and in this process."""
    facts: Figures = {
        "meaning": "Flower's simulation engine (Ray) against in-process: figures of the last round",
        "must": f"within {MOST_POINTS:g} point",
    }
    if importlib.util.find_spec("ray") is None:
        return {**facts, "met": None, "unmeasured": "Ray is not installed"}
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    last = {}
    for runtime in ("in-process", "simulation"):
        with tempfile.TemporaryDirectory() as folder:
            own = ground.under(Path(folder)).federation(changes=THREE)
            summary = own.train(run=run.RUN[runtime])["rounds"][-1]["summary"]
            last[runtime] = {key: summary[key]["mean"] for key in ("clean", "pgd", "nll")}
    points = {
        key: 100 * (last["simulation"][key] - last["in-process"][key]) for key in ("clean", "pgd")
    }
    return {
        **facts,
        "met": max(abs(value) for value in points.values()) <= MOST_POINTS,
        "points": points,
        "last": last,
    }


def overhead(ground: Ground, repeats: int = REPEATS, changes: str = THREE) -> Figures:
    """The in-process federation against the bare loop, in turns; both read the scans themselves."""
    times: dict[str, list[dict[str, float]]] = {"federation": [], "bare": []}
    same = True
    for repeat in range(repeats):
        found = {}
        for name in sorted(times, reverse=bool(repeat % 2)):
            with tempfile.TemporaryDirectory() as folder:
                own = ground.under(Path(folder)).federation("no-momentum", changes=changes)
                run = _federated if name == "federation" else _bare
                found[name], seconds = _timed(partial(run, own))
                times[name].append(seconds)
        same &= is_same(found["federation"], found["bare"])
    ratios = {clock: _ratio(times, clock) for clock in ("wall", "cpu")}
    return {
        "meaning": "the in-process federation against the same hospitals' train and evaluate in a "
        "bare loop with Eq. 23, in turns: ratio of medians, reading of the scans included",
        "must": f"at most {MOST_OVERHEAD:g} of the processor's time, the same tensors",
        "met": ratios["cpu"] <= MOST_OVERHEAD and same,
        "ratio": ratios,
        "same_tensors": same,
        "times": times,
    }


def bare(experiment: Experiment, hospitals: Sequence[Hospital]) -> dict[str, Tensor]:
    """The federation's training without its messages and checks; what is shared in the end.

    The mean is taken as the server takes it: with its last bits elsewhere, training goes elsewhere.
    Server momentum, late clients and failures are left out: the preset must have none of them.
    """
    config, total = experiment.config, experiment.num_rounds
    shared = best = experiment.shared(experiment.model())
    scores: dict[int, float] = {}
    chosen = 0
    for now in range(1, total + 1):
        span = ((now - 1) / total, now / total)
        mean = RunningMean()
        for h in hospitals:
            new, _ = h.train(shared, now, has_joined=now > 1, best=chosen, span=span)
            mean.add(new, len(h.corpus.train))
        shared = mean.result()
        if now % config.eval_every and now < total:
            continue
        figures = {h.client: h.evaluate(shared, now) for h in hospitals}
        scores[now] = metrics.summary(figures)["score"]["mean"]
        if max(scores, key=lambda n: scores[n]) == now:
            chosen, best = now, shared
    for hospital in hospitals:
        hospital.evaluate(best, chosen, finish=True)
    return shared


def is_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors are the same, to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def learned(own: Federation) -> dict[str, Tensor]:
    """What is shared after the last round of the mixture's phase."""
    tensors, _ = state_file.read(own.folder("mixture") / STATE, own.experiment.digest)
    return {n.removeprefix("last/"): t for n, t in tensors.items() if n.startswith("last/")}


def _federated(own: Federation) -> dict[str, Tensor]:
    own.train()
    return learned(own)


def _bare(own: Federation) -> dict[str, Tensor]:
    p = own.places
    corpus = load_corpus(own.experiment.protocol, p.data, p.cache, p.manifests)
    return bare(own.experiment, Federation(own.experiment, own.preset, corpus, p).hospitals())


def _timed(call: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What a call returns and its seconds: on the clock, and of this process' own work."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _ratio(times: dict[str, list[dict[str, float]]], clock: str) -> float:
    medians = {n: statistics.median(t[clock] for t in runs) for n, runs in times.items()}
    return medians["federation"] / medians["bare"]
