"""Cost of the federation engine: overhead, bytes, seconds and memory by number of clients.

`python -m bench.federation.scaling SETTINGS` measures one federation in its own process, so that
peaks of memory do not mix.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message
from torch import Tensor

from bench.app.server import peak_memory
from bench.federation.trainings import Federation, FederationFixture
from bench.parallel import say
from bench.provenance import ROOT, machine_facts
from bench.result_file import Figures
from train.data.corpus import load_corpus
from train.federated import metrics, state_file
from train.federated.client import client_app
from train.federated.client.hospital import Hospital
from train.federated.experiment import Experiment, read_experiment
from train.federated.runtime import run
from train.federated.serialization import pack
from train.federated.server.run_state import STATE
from train.federated.server.strategies import RunningMean
from train.recipes import FILES

T = TypeVar("T")
REPEATS = 5
MAX_OVERHEAD = 1.10  # ratio of the processor's time
CLIENTS = (10, 25, 50)
AFTER_LAST_ROUND = sys.maxsize
MAX_DEVIATION = 0.15  # share, of a fitted line
MAX_HELD_PAYLOADS = 0.5  # for each client more: no reply is kept in memory
THREE_HOSPITALS = """
num_rounds = 2
eval_every = 1
min_clients = 2
[federated.partition]
num_clients = 3
"""  # all their scans, as a message costs little beside what a hospital does
# few scans a client, as many at each N: 50 hospitals share what there is
SCALING_CHANGES = """
num_rounds = 3
eval_every = 1
min_clients = 2
[federated.partition]
num_clients = {clients}
min_scans = 8
max_scans = 20
[classifier.fit]
batch_size = 8
"""


class Meter:
    """The clients' app, counting bytes by kind of message and timing the rounds.

    Kinds are Flower's, and 'finish': the validation of the best round, after the last. Bytes are
    those of tensors in NumPy's format with their names, as Flower counts them; configuration,
    figures and the envelope, some 300 bytes, are left out.
    """

    def __init__(self) -> None:
        self.down: Counter[str] = Counter()
        self.up: Counter[str] = Counter()
        self.scans = 0  # of all clients
        self._began: dict[int, tuple[float, float]] = {}  # round -> the clocks at its first message

    def __call__(self, message: Message, context: Context) -> Message:
        """Runs the clients' app."""
        config = message.content.config_records.get("config", ConfigRecord())
        kind = "finish" if config.get("finish") else message.metadata.message_type
        if kind in ("train", "finish"):
            index = int(str(config["round"])) if kind == "train" else AFTER_LAST_ROUND
            self._began.setdefault(index, (time.perf_counter(), time.process_time()))
        self.down[kind] += count_bytes(message)
        reply: Message = client_app.app(message, context)
        self.up[kind] += count_bytes(reply)
        if reply.has_content() and "who" in reply.content:
            who = reply.content.config_records["who"]
            self.scans += sum(int(str(who[name])) for name in ("num-train", "num-val"))
        return reply

    @property
    def rounds(self) -> int:
        """Rounds that have ended."""
        return len(self._began) - 1

    @property
    def seconds(self) -> dict[str, float]:
        """The fastest round: on the clock, and of this process' own work."""
        marks = np.array([self._began[i] for i in sorted(self._began)])
        wall, cpu = np.diff(marks, axis=0).min(axis=0)
        return {"wall": float(wall), "cpu": float(cpu)}

    @property
    def bytes(self) -> float:
        """Mean bytes of a round, both ways, all clients together."""
        both = self.down + self.up
        return (both["train"] + both["evaluate"]) / self.rounds


def count_bytes(message: Message) -> int:
    """Returns the bytes of a message's tensors."""
    if not message.has_content():
        return 0
    return sum(record.count_bytes() for record in message.content.array_records.values())


def measure_payload(fixture: FederationFixture, preset: str = "sites") -> Figures:
    """Counts the bytes sent in each phase of the preset of the shipped weights."""
    phases = {}
    for phase in FILES:
        experiment = read_experiment(preset, fixture.learning, fixture.seed, phase)
        shared = experiment.select_shared(experiment.build_model())
        config, rounds = experiment.config, experiment.num_rounds
        packed = pack(shared).count_bytes()
        asked = rounds * (
            1 if experiment.is_solved else config.clients_per_round / config.partition.num_clients
        )
        measured = len({*range(config.eval_every, rounds + 1, config.eval_every), rounds})
        phases[phase] = {
            "tensors": sum(t.nbytes for t in shared.values()),
            "packed": packed,
            "down_per_round": packed * (asked + measured) / rounds,
            "up_per_round": packed * asked / rounds,
            "rounds": rounds,
            "total_per_client": packed * (2 * asked + measured + 1),
        }
    most = max(p["packed"] / p["tensors"] for p in phases.values())
    return {
        "meaning": f"preset {preset!r}, one client: bytes of packed ArrayRecords (NumPy's format "
        "with names), mean of rounds and clients. Down: the networks to learn from in rounds that "
        "ask the client, and the new ones where a round is validated. Up: what was learned. "
        "Configuration and figures are some 300 bytes more",
        "must": "",
        "met": None,
        "packed_by_tensors": most,
        "phases": phases,
    }


def measure_scaling(fixture: FederationFixture, clients: Sequence[int] = CLIENTS) -> Figures:
    """Measures seconds, memory and bytes of federations of several sizes, each in its process."""
    found: dict[int, Figures] = {}
    for n in clients:
        with tempfile.TemporaryDirectory() as folder:
            own = fixture.with_runs(Path(folder)).build(
                changes=SCALING_CHANGES.format(clients=n), protocol=fixture.learning
            )
            found[n] = _run_in_own_process(own.build_settings())
            say(f"{n} clients: {found[n]}")
    fits = {key: fit_line(clients, [found[n][key] for n in clients]) for key in ("cpu_s", "bytes")}
    least, most = min(clients), max(clients)
    few, many, growth = found[least], found[most], dict[str, float]()
    if few["peak_mb"]:  # None outside Linux
        growth = {key: many[key] - few[key] for key in ("peak_mb", "resident_mb", "scans_mb")}
        gained = growth["resident_mb"] - growth["scans_mb"]
        growth["per_client_mb"] = gained / (most - least)
    return {
        "meaning": f"{fixture.learning}, 20 scans a client, 3 rounds, each N in a process of its "
        "own: the fastest round's seconds and a round's bytes should grow as N; memory, the "
        "clients' own scans apart, not at all. Peak: as all scans are read; resident: at the end",
        "must": f"seconds of the processor and bytes within {MAX_DEVIATION:.0%} of a line; what "
        f"is resident grows, scans apart, by less than {MAX_HELD_PAYLOADS:g} payloads a client",
        "met": max(fit["largest_deviation"] for fit in fits.values()) <= MAX_DEVIATION
        and bool(growth)
        and growth["per_client_mb"] < MAX_HELD_PAYLOADS * few["payload_mb"],
        "clients": {str(n): found[n] for n in clients},
        "fits": fits,
        "growth": growth,
        "machine": machine_facts(torch.device("cpu")),
    }


def run_metered(settings: Mapping[str, Any]) -> Figures:
    """Runs a federation in this process; returns its bytes, seconds and memory."""
    meter = Meter()
    run.run_in_process(settings, meter)
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    shared, moe = experiment.select_shared(experiment.build_model()), experiment.preset.system.moe
    return {
        **{f"{clock}_s": seconds for clock, seconds in meter.seconds.items()},
        "bytes": meter.bytes,
        "down": dict(meter.down),
        "up": dict(meter.up),
        "peak_mb": peak_memory(os.getpid()),
        "resident_mb": peak_memory(os.getpid(), "VmRSS"),
        "scans_mb": meter.scans * moe.in_chans * moe.img_size**2 / 2**20,
        "payload_mb": pack(shared).count_bytes() / 2**20,
        "rounds": meter.rounds,
    }


def measure_overhead(
    fixture: FederationFixture, repeats: int = REPEATS, changes: str = THREE_HOSPITALS
) -> Figures:
    """Compares the in-process federation with a plain loop, in turns; both load the scans."""
    times: dict[str, list[dict[str, float]]] = {"federation": [], "bare": []}
    is_equal = True
    for repeat in range(repeats):
        found = {}
        for name in sorted(times, reverse=bool(repeat % 2)):
            with tempfile.TemporaryDirectory() as folder:
                own = fixture.with_runs(Path(folder)).build("no-momentum", changes=changes)
                run = _run_federation if name == "federation" else _run_plain_loop
                found[name], seconds = _time(partial(run, own))
                times[name].append(seconds)
        is_equal &= are_equal(found["federation"], found["bare"])
    medians = {
        name: {clock: statistics.median(t[clock] for t in runs) for clock in ("wall", "cpu")}
        for name, runs in times.items()
    }
    ratios = {clock: medians["federation"][clock] / bare for clock, bare in medians["bare"].items()}
    return {
        "meaning": "the in-process federation against the same hospitals' train and evaluate in a "
        "bare loop with Eq. 23, in turns: ratio of medians, reading of the scans included",
        "must": f"at most {MAX_OVERHEAD:g} of the processor's time, the same tensors",
        "met": ratios["cpu"] <= MAX_OVERHEAD and is_equal,
        "ratio": ratios,
        "same_tensors": is_equal,
        "times": times,
    }


def train_plain(experiment: Experiment, hospitals: Sequence[Hospital]) -> dict[str, Tensor]:
    """Trains the hospitals without messages and checks; returns the final shared tensors.

    The mean is computed as on the server: other last bits would lead training elsewhere.
    Server momentum, late clients and failures are left out: the preset must have none of them.
    """
    config, total = experiment.config, experiment.num_rounds
    shared = best = experiment.select_shared(experiment.build_model())
    scores: dict[int, float] = {}
    chosen = 0
    for round_index in range(1, total + 1):
        span = ((round_index - 1) / total, round_index / total)
        mean = RunningMean()
        for h in hospitals:
            new, _ = h.train(
                shared, round_index, has_joined=round_index > 1, best=chosen, span=span
            )
            mean.add(new, len(h.corpus.train))
        shared = mean.result()
        if round_index % config.eval_every and round_index < total:
            continue
        figures = {h.client: h.evaluate(shared, round_index) for h in hospitals}
        scores[round_index] = metrics.summarize(figures)["score"]["mean"]
        if max(scores, key=lambda n: scores[n]) == round_index:
            chosen, best = round_index, shared
    for hospital in hospitals:
        hospital.evaluate(best, chosen, finish=True)
    return shared


def are_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Returns True for bit-identical sets of tensors."""
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def load_shared(own: Federation) -> dict[str, Tensor]:
    """Loads the shared tensors after the last round of the mixture's phase."""
    tensors, _ = state_file.read(own.phase_folder("mixture") / STATE, own.experiment.digest)
    return {n.removeprefix("last/"): t for n, t in tensors.items() if n.startswith("last/")}


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """Fits y = intercept + slope * x by least squares; with its largest relative deviation."""
    slope, intercept = np.polyfit(xs, ys, 1)
    fitted = intercept + slope * np.asarray(xs)
    deviation = np.abs(fitted / np.asarray(ys) - 1).max()
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "largest_deviation": float(deviation),
    }


def _run_federation(own: Federation) -> dict[str, Tensor]:
    own.train()
    return load_shared(own)


def _run_plain_loop(own: Federation) -> dict[str, Tensor]:
    p = own.places
    corpus = load_corpus(own.experiment.protocol, p.data, p.cache, p.manifests)
    return train_plain(
        own.experiment, Federation(own.experiment, own.preset, corpus, p).build_hospitals()
    )


def _time(call: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Returns a call's result and its seconds: wall clock and processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _run_in_own_process(settings: Mapping[str, Any]) -> Figures:
    words = [sys.executable, "-m", "bench.federation.scaling", json.dumps(dict(settings))]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"the federation failed: {run.stderr.strip().splitlines()[-1]}")
    figures: Figures = json.loads(run.stdout.strip().splitlines()[-1])
    return figures


if __name__ == "__main__":
    print(json.dumps(run_metered(json.loads(sys.argv[1]))))
