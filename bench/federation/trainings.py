"""Trains a federation for a bench, or goes on with it, and opens what its hospitals ended with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bench.provenance import key_of
from core.pipeline import MedFedPure
from core.weights import load
from train.calibration import calibrate, fusion, logistic
from train.config import Preset
from train.data.corpus import Corpus
from train.data.partition import client_corpus
from train.device import pick_device
from train.federated.client.hospital import Hospital
from train.federated.experiment import Experiment, read_experiment
from train.federated.export import export
from train.federated.runtime import run
from train.federated.server.run_state import RESULT, STATE
from train.recipes import phases_of

RunFn = Callable[[run.Settings], Any]


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
        e, name = self.experiment, Path(self.preset).name.replace(".toml", "")
        return self.places.runs / f"{name}-{e.protocol}-{e.seed}"

    def folder(self, phase: str) -> Path:
        """A phase's own folder: one for each T, since the learning rate's schedule hangs on it."""
        return self.out / f"{phase}-{replace(self.experiment, phase=phase).num_rounds}"

    def settings(self, phase: str = "mixture") -> dict[str, Any]:
        """What an engine is told of a phase: it goes on with what its folder holds."""
        folder = self.folder(phase)
        return {
            "preset": self.preset, "protocol": self.experiment.protocol,
            "seed": self.experiment.seed, "phase": phase, "out": str(folder.resolve()),
            "resume": (folder / STATE).is_file(), "state": str((self.out / "clients").resolve()),
            "data": str(self.places.data.resolve()), "cache": str(self.places.cache.resolve()),
            "manifests": str(self.places.manifests.resolve()), "defence": "",
        }  # fmt: skip

    def train(self, phase: str = "mixture", run: RunFn = run.in_process) -> dict[str, Any]:
        """All rounds of a phase that are left; the whole record of them."""
        run(self.settings(phase))
        record: dict[str, Any] = json.loads((self.folder(phase) / RESULT).read_text("utf-8"))
        return record

    def hospitals(self) -> list[Hospital]:
        """The clients with their scans and what they have kept."""
        partition, states = self.experiment.config.partition, self.out / "clients"
        own = [client_corpus(self.corpus, partition, c) for c in range(partition.num_clients)]
        return [Hospital(self.experiment, part, c, states) for c, part in enumerate(own)]

    def models(self) -> list[nn.Module]:
        """Each client's network as it has finished the mixture's phase, for reading."""
        models = []
        for hospital in self.hospitals():
            model = self.experiment.model()
            model.load_state_dict(hospital.shelf.finished(self.experiment))
            models.append(model.to(pick_device()).eval().requires_grad_(False))
        return models

    def systems(self) -> list[MedFedPure]:
        """Each client's whole system, after all phases, calibrated on its own scans."""
        phases = phases_of(self.experiment.preset)
        learned = [self.train(phase) for phase in phases]
        weights, clients = self.out / "weights", range(self.experiment.config.partition.num_clients)
        made_of = weights / "made-of"  # which trainings an earlier start has exported
        rules = [
            Path(str(part.__file__)).read_text("utf-8") for part in (calibrate, fusion, logistic)
        ]
        preset = decisive(self.experiment.preset, whole=True)
        key = key_of({"preset": preset, "learned": learned, "calibrated_by": rules})
        if not made_of.is_file() or made_of.read_text("utf-8") != key:
            shutil.rmtree(weights, ignore_errors=True)
            export(self.experiment, self.corpus, clients, self.out / "clients", weights)
            made_of.write_text(key, "utf-8")
        return [load(weights, hospital=client + 1) for client in clients]


def federation(preset: str, protocol: str, seed: int, corpus: Corpus, places: Places) -> Federation:
    """The federation of a preset's mixture on a protocol's scans."""
    return Federation(read_experiment(preset, protocol, seed), preset, corpus, places)


def decisive(preset: Preset, *, whole: bool = False) -> dict[str, Any]:
    """What of a preset decides figures: of a mixture alone no other part's training does."""
    settings = asdict(preset)
    for phase in ("novelty", "smoothed"):  # nothing is refused here, nor certified
        del settings[phase], settings["federated"]["rounds"][phase]
    if whole:
        return settings
    del settings["federated"]["rounds"]
    learning = {key: settings[key] for key in ("classifier", "federated")}
    return {"moe": settings["system"]["moe"], **learning}
