"""Run state on the server: rounds, shared tensors of the last and the best, joined clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoint import write_atomic
from train.federated import state_file
from train.federated.experiment import Experiment
from train.federated.state_file import StateError
from train.federated.warm_start import start_shared

STATE, RESULT = "server.safetensors", "federated.json"


class RunState:
    """State of one experiment in the folder `out`, resumed at the next start.

    The first round starts from what `start` holds of the network, a folder of weights, or from
    fresh numbers.

    Raises:
        StateError: `out` holds rounds already and `resume` is off, or they are another
            experiment's, or began from other weights.
        WeightsError: `start` holds no such network.
    """

    def __init__(
        self, experiment: Experiment, out: Path, *, resume: bool, start: str | Path = ""
    ) -> None:
        self.experiment, self.out = experiment, out
        self.shared = experiment.shared(experiment.model())
        self.start = ""  # sha256 of the file that the first round starts from
        if start:
            self.shared, self.start = start_shared(experiment, Path(start), self.shared)
        self.best = self.mean = self.shared
        self.velocity = {n: torch.zeros_like(t) for n, t in self.shared.items()}
        self.history: list[dict[str, Any]] = []
        self.joined: list[int] = []
        if (out / STATE).is_file():
            if not resume:
                raise StateError(f"{out / STATE} holds rounds already: --resume goes on with them")
            self._load()

    @property
    def best_round(self) -> int:
        """Round with the highest mean validation score, the first of equals; 0 before any."""
        scores = {r["round"]: r["summary"]["score"]["mean"] for r in self.history if r["summary"]}
        return max(scores, key=lambda round_index: scores[round_index]) if scores else 0

    def step(self, mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """Apply the round's aggregate, with server momentum (FedAvgM) where it is set."""
        momentum = self.experiment.config.strategy.momentum
        if not momentum:
            return mean
        moved = {n: mean[n] - t for n, t in self.shared.items()}
        self.velocity = {n: momentum * v + moved[n] for n, v in self.velocity.items()}
        return {n: t + self.velocity[n] for n, t in self.shared.items()}

    def averaged(self, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors to evaluate: with `average` the mean over rounds, else `shared`."""
        kept = self.experiment.config.strategy.average
        led = any(not r["skipped"] for r in self.history)
        if not kept or not led or self.experiment.is_solved:
            return shared
        return {n: kept * self.mean[n] + (1 - kept) * t for n, t in shared.items()}

    def add(self, entry: dict[str, Any], shared: dict[str, Tensor]) -> None:
        """Add a finished round and its shared tensors."""
        if not entry["skipped"]:
            self.mean = self.averaged(shared)
        self.history.append(entry)
        self.shared = shared
        if self.best_round == entry["round"]:
            self.best = self.mean
        tensors = {f"last/{n}": t for n, t in self.shared.items()}
        tensors |= {f"best/{n}": t for n, t in self.best.items()}
        if self.experiment.config.strategy.momentum:
            tensors |= {f"velocity/{n}": t for n, t in self.velocity.items()}
        if self.experiment.config.strategy.average:
            tensors |= {f"mean/{n}": t for n, t in self.mean.items()}
        facts = {
            "digest": self.experiment.digest,
            "history": self.history,
            "joined": self.joined,
            "start": self.start,
        }
        state_file.write(self.out / STATE, tensors, facts)

    def write_result(self, final: dict[str, Any]) -> None:
        """Write the record of the training; `final` holds the metrics of the best round."""
        facts = {
            "preset": self.experiment.preset.name,
            "phase": self.experiment.phase,
            "protocol": self.experiment.protocol,
            "seed": self.experiment.seed,
            "start": self.start,
            "digest": self.experiment.digest,
            "best_round": self.best_round,
            "final": final,
            "rounds": self.history,
        }
        text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
        write_atomic(self.out / RESULT, text.encode())

    def _load(self) -> None:
        tensors, facts = state_file.read(self.out / STATE, self.experiment.digest)
        if facts.get("start", "") != self.start:
            raise StateError(f"{self.out / STATE} began from other weights: name the same --start")
        self.history, self.joined = facts["history"], facts["joined"]
        if not self.best_round and len(self.history) >= self.experiment.num_rounds:
            self.history, self.joined = [], []  # nothing came of it: all rounds are asked for again
            return
        self.best = {n: tensors[f"best/{n}"] for n in self.shared}
        self.velocity = {n: tensors.get(f"velocity/{n}", v) for n, v in self.velocity.items()}
        self.shared = {n: tensors[f"last/{n}"] for n in self.shared}
        self.mean = {n: tensors.get(f"mean/{n}", t) for n, t in self.shared.items()}
