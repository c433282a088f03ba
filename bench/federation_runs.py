"""Trains a federation for a bench, or goes on with it, and opens what its hospitals ended with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.pipeline import MedFedPure
from core.system import load
from train.corpus import Corpus
from train.federated import engines
from train.federated.experiment import Experiment, read_experiment
from train.federated.export import export
from train.federated.hospital import Hospital
from train.federated.ledger import RESULT, STATE
from train.partition import client_corpus
from train.recipes import FILES


@dataclass(frozen=True)
class Places:
    """Where data, decoded scans, manifests and runs lie."""

    data: Path
    cache: Path
    manifests: Path
    runs: Path


@dataclass(frozen=True)
class Federation:
    """A federation of `experiment` that keeps everything in `out`."""

    experiment: Experiment
    preset: str
    corpus: Corpus
    places: Places

    @property
    def out(self) -> Path:
        """Its folder."""
        e = self.experiment
        return self.places.runs / f"{self.preset}-{e.protocol}-{e.seed}"

    def train(self, phase: str = "mixture") -> dict[str, Any]:
        """All rounds of a phase that are left; the whole record of them."""
        folder = self.out / phase
        settings = {
            "preset": self.preset, "protocol": self.experiment.protocol,
            "seed": self.experiment.seed, "phase": phase, "out": str(folder.resolve()),
            "resume": (folder / STATE).is_file(), "state": str((self.out / "clients").resolve()),
            "data": str(self.places.data.resolve()), "cache": str(self.places.cache.resolve()),
            "manifests": str(self.places.manifests.resolve()), "defence": "",
        }  # fmt: skip
        engines.RUN["in-process"](settings)
        record: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return record

    def hospitals(self) -> list[Hospital]:
        """The clients with their scans and what they have kept."""
        partition, states = self.experiment.config.partition, self.out / "clients"
        own = [client_corpus(self.corpus, partition, c) for c in range(partition.num_clients)]
        return [Hospital(self.experiment, part, c, states) for c, part in enumerate(own)]

    def systems(self) -> list[MedFedPure]:
        """Each client's whole system, after all phases, calibrated on its own scans."""
        for phase in FILES:
            self.train(phase)
        weights, clients = self.out / "weights", range(self.experiment.config.partition.num_clients)
        if not (weights / "manifest.json").is_file():
            export(self.experiment, self.corpus, clients, self.out / "clients", weights)
        return [load(weights, hospital=client + 1) for client in clients]


def federation(preset: str, protocol: str, seed: int, corpus: Corpus, places: Places) -> Federation:
    """The federation of a preset's mixture on a protocol's scans."""
    return Federation(read_experiment(preset, protocol, seed), preset, corpus, places)
