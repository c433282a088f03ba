"""Traffic and cost of N clients: bytes, seconds and memory.

`python -m bench.federation.scaling SETTINGS` measures one federation in its own process, so that
peaks of memory do not mix.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message

from bench.app.server import peak_memory
from bench.federation.federation_ground import Ground
from bench.progress import say
from bench.provenance import ROOT, machine_facts
from bench.result_file import Figures
from train.federated.client import client_app
from train.federated.experiment import read_experiment
from train.federated.runtime import run
from train.federated.serialization import pack
from train.recipes import FILES

CLIENTS = (10, 50, 100)
AFTER = sys.maxsize  # all rounds
MOST_DEVIATION = 0.15  # of a line from what was measured
MOST_HELD = 0.5  # of a payload for each client more: no answer is kept
# few scans a client, as many at each N: 100 hospitals share what there is
MANY = """
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
    """Answers as the clients' app does; counts bytes by kind of message, and notes the times.

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
        """The clients' app."""
        config = message.content.config_records.get("config", ConfigRecord())
        kind = "finish" if config.get("finish") else message.metadata.message_type
        if kind in ("train", "finish"):
            now = int(str(config["round"])) if kind == "train" else AFTER
            self._began.setdefault(now, (time.perf_counter(), time.process_time()))
        self.down[kind] += size(message)
        reply: Message = client_app.app(message, context)
        self.up[kind] += size(reply)
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
        marks = np.array([self._began[now] for now in sorted(self._began)])
        wall, cpu = np.diff(marks, axis=0).min(axis=0)
        return {"wall": float(wall), "cpu": float(cpu)}

    @property
    def bytes(self) -> float:
        """Mean bytes of a round, both ways, all clients together."""
        both = self.down + self.up
        return (both["train"] + both["evaluate"]) / self.rounds


def size(message: Message) -> int:
    """Bytes of a message's tensors; 0 of one that has none."""
    if not message.has_content():
        return 0
    return sum(record.count_bytes() for record in message.content.array_records.values())


def payload(ground: Ground, preset: str = "federated") -> Figures:
    """Bytes of what travels in each phase of the preset that ships, from packed records."""
    phases = {}
    for phase in FILES:
        experiment = read_experiment(preset, ground.learning, ground.seed, phase)
        shared = experiment.shared(experiment.model())
        config, rounds = experiment.config, experiment.num_rounds
        packed = pack(shared).count_bytes()
        measured = len({*range(config.eval_every, rounds + 1, config.eval_every), rounds})
        phases[phase] = {
            "tensors": sum(t.nbytes for t in shared.values()),
            "packed": packed,
            "down_per_round": packed * (rounds + measured) / rounds,
            "up_per_round": packed,
            "rounds": rounds,
            "total_per_client": packed * (2 * rounds + measured + 1),
        }
    most = max(p["packed"] / p["tensors"] for p in phases.values())
    return {
        "meaning": f"preset {preset!r}, one client: bytes of packed ArrayRecords (NumPy's format "
        "with names). Down: the round's networks to learn from, and the new ones where a round is "
        "validated. Up: what was learned. Configuration and figures are some 300 bytes more",
        "must": "",
        "met": None,
        "packed_by_tensors": most,
        "phases": phases,
    }


def scaling(ground: Ground, clients: Sequence[int] = CLIENTS) -> Figures:
    """A federation of each size in a process of its own: seconds a round, peak memory, bytes."""
    found: dict[int, Figures] = {}
    for n in clients:
        with tempfile.TemporaryDirectory() as folder:
            own = ground.under(Path(folder)).federation(
                changes=MANY.format(clients=n), protocol=ground.learning
            )
            found[n] = _in_own_process(own.settings())
            say(f"{n} clients: {found[n]}")
    fits = {key: line(clients, [found[n][key] for n in clients]) for key in ("cpu_s", "bytes")}
    few, many = (found[n] for n in (min(clients), max(clients)))
    growth: dict[str, float] = {}
    if few["peak_mb"]:  # None outside Linux
        keys = ("peak_mb", "resident_mb", "scans_mb")
        growth = {key: many[key] - few[key] for key in keys}
        growth["per_client_mb"] = (growth["resident_mb"] - growth["scans_mb"]) / (
            max(clients) - min(clients)
        )
    return {
        "meaning": f"{ground.learning}, 20 scans a client, 3 rounds, each N in a process of its "
        "own: the fastest round's seconds and a round's bytes should grow as N; memory, the "
        "clients' own scans apart, not at all. Peak: as all scans are read; resident: at the end",
        "must": f"seconds of the processor and bytes within {MOST_DEVIATION:.0%} of a line; what "
        f"is resident grows, scans apart, by less than {MOST_HELD:g} payloads a client",
        "met": max(fit["largest_deviation"] for fit in fits.values()) <= MOST_DEVIATION
        and bool(growth)
        and growth["per_client_mb"] < MOST_HELD * few["payload_mb"],
        "clients": {str(n): found[n] for n in clients},
        "fits": fits,
        "growth": growth,
        "machine": machine_facts(torch.device("cpu")),
    }


def measure(settings: Mapping[str, Any]) -> Figures:
    """One federation in this process."""
    meter = Meter()
    run.in_process(settings, meter)
    experiment = read_experiment(settings["preset"], settings["protocol"], settings["seed"])
    shared, moe = experiment.shared(experiment.model()), experiment.preset.system.moe
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


def line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """The least-squares line y = intercept + slope * x, and its largest deviation, as a share."""
    slope, intercept = np.polyfit(xs, ys, 1)
    fitted = intercept + slope * np.asarray(xs)
    deviation = np.abs(fitted / np.asarray(ys) - 1).max()
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "largest_deviation": float(deviation),
    }


def _in_own_process(settings: Mapping[str, Any]) -> Figures:
    words = [sys.executable, "-m", "bench.federation.scaling", json.dumps(dict(settings))]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"the federation broke off: {run.stderr.strip().splitlines()[-1]}")
    figures: Figures = json.loads(run.stdout.strip().splitlines()[-1])
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
