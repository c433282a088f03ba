"""Federations trained for the benches: trains or resumes one, and loads its hospitals' models."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from bench.provenance import key_of
from core.checkpoint import write_atomic
from core.pipeline import MedFedPure
from core.weights import load
from train.calibration import calibrate, fusion, logistic
from train.config import Preset
from train.data.corpus import Corpus, load_corpus
from train.data.partition import select_client_corpus
from train.device import pick_device
from train.federated.client.hospital import Hospital
from train.federated.experiment import Experiment, read_experiment
from train.federated.export import export
from train.federated.server.run_state import RESULT, STATE
from train.recipes import list_phases

RunFn = Callable[[Mapping[str, Any]], Any]
PRESET = "federation-bench"
LEARNING = "patients"


@dataclass(frozen=True)
class Places:
    """Folders of data, decoded scans, manifests and runs."""

    data: Path
    cache: Path
    manifests: Path
    runs: Path


@dataclass(frozen=True)
class Federation:
    """A federation of `experiment`; all its files lie in `out`."""

    experiment: Experiment
    preset: str
    corpus: Corpus
    places: Places

    @property
    def out(self) -> Path:
        """Folder of its files."""
        e, name = self.experiment, Path(self.preset).name.replace(".toml", "")
        return self.places.runs / f"{name}-{e.protocol}-{e.seed}"

    def phase_folder(self, phase: str) -> Path:
        """Returns a phase's folder: one per number of rounds, which sets the learning rate."""
        return self.out / f"{phase}-{replace(self.experiment, phase=phase).num_rounds}"

    def build_settings(self, phase: str = "mixture") -> dict[str, Any]:
        """Returns the engine's settings of a phase, which resume where its folder holds a state."""
        folder = self.phase_folder(phase)
        return {
            "preset": self.preset, "protocol": self.experiment.protocol,
            "seed": self.experiment.seed, "phase": phase, "out": str(folder.resolve()),
            "resume": (folder / STATE).is_file(), "state": str((self.out / "clients").resolve()),
            "data": str(self.places.data.resolve()), "cache": str(self.places.cache.resolve()),
            "manifests": str(self.places.manifests.resolve()), "defence": "",
        }  # fmt: skip

    def train(self, phase: str = "mixture", run: RunFn | None = None) -> dict[str, Any]:
        """Trains the remaining rounds of a phase, in this process by default.

        Returns the record of all its rounds.
        """
        if run is None:
            from train.federated.runtime.run import run_in_process as run  # Flower is an extra
        run(self.build_settings(phase))
        record: dict[str, Any] = json.loads((self.phase_folder(phase) / RESULT).read_text("utf-8"))
        return record

    def build_hospitals(self) -> list[Hospital]:
        """Returns the clients with their scans and their local state."""
        partition, states = self.experiment.config.partition, self.out / "clients"
        own = [
            select_client_corpus(self.corpus, partition, c) for c in range(partition.num_clients)
        ]
        return [Hospital(self.experiment, part, c, states) for c, part in enumerate(own)]

    def load_models(self) -> list[nn.Module]:
        """Loads each client's final network of the mixture's phase, for inference."""
        models = []
        for hospital in self.build_hospitals():
            model = self.experiment.build_model()
            model.load_state_dict(hospital.local_state.read_finished(self.experiment))
            models.append(model.to(pick_device()).eval().requires_grad_(False))
        return models

    def load_systems(self) -> list[MedFedPure]:
        """Trains all phases and loads each client's system, calibrated on its own scans."""
        phases = list_phases(self.experiment.preset)
        learned = [self.train(phase) for phase in phases]
        weights, clients = self.out / "weights", range(self.experiment.config.partition.num_clients)
        made_of = weights / "made-of"  # key of the trainings that were exported
        rules = [
            Path(str(part.__file__)).read_text("utf-8") for part in (calibrate, fusion, logistic)
        ]
        preset = select_settings(self.experiment.preset, whole=True)
        key = key_of({"preset": preset, "learned": learned, "calibrated_by": rules})
        if not made_of.is_file() or made_of.read_text("utf-8") != key:
            shutil.rmtree(weights, ignore_errors=True)
            export(self.experiment, self.corpus, clients, self.out / "clients", weights)
            made_of.write_text(key, "utf-8")
        return [load(weights, hospital=client + 1) for client in clients]


@dataclass(frozen=True)
class FederationFixture:
    """Settings that the rows share: folders, protocols of engine and learning rows, seed."""

    places: Places
    protocol: str = LEARNING
    learning: str = LEARNING
    seed: int = 0

    def with_runs(self, folder: Path) -> FederationFixture:
        """Returns a copy with another folder of runs."""
        return replace(self, places=replace(self.places, runs=folder))

    def build(
        self,
        *methods: str,
        changes: str = "",
        protocol: str = "",
        seed: int | None = None,
        preset: str = PRESET,
    ) -> Federation:
        """Returns a federation of a preset with the overrides `methods`.

        `changes` are lines of TOML, beginning in the table [federated], that come before them.
        """
        if changes:
            text = f'extends = "{preset}"\n[federated]\n{changes}'
            name = f"{preset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"
            path = (self.places.runs / name).resolve()
            write_atomic(path, text.encode())
            preset = str(path)
        preset = "+".join([preset, *methods])
        protocol, seed = protocol or self.protocol, self.seed if seed is None else seed
        p = self.places
        corpus = _load_corpus(protocol, p.data, p.cache, p.manifests)
        return build_federation(preset, protocol, seed, corpus, p)


def build_federation(
    preset: str, protocol: str, seed: int, corpus: Corpus, places: Places
) -> Federation:
    """Returns the federation of a preset's mixture on a protocol's scans."""
    return Federation(read_experiment(preset, protocol, seed), preset, corpus, places)


def select_settings(preset: Preset, *, whole: bool = False) -> dict[str, Any]:
    """Returns the settings of a preset that affect figures: for a mixture those of its training."""
    settings = asdict(preset)
    for phase in ("novelty", "certified"):  # nothing is refused here, nor certified
        del settings[phase], settings["federated"]["rounds"][phase]
    if whole:
        return settings
    del settings["federated"]["rounds"]
    learning = {key: settings[key] for key in ("classifier", "federated")}
    return {"moe": settings["system"]["moe"], **learning}


@lru_cache(maxsize=1)
def _load_corpus(protocol: str, data: Path, cache: Path, manifests: Path) -> Corpus:
    return load_corpus(protocol, data, cache, manifests)
