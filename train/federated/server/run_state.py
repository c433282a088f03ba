"""Server state on disk: rounds, shared tensors of the last and best round, joined clients."""

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
from train.federated.warm_start import load_shared_start

STATE, RESULT = "server.safetensors", "federated.json"


class RunState:
    """One experiment's rounds in the folder `out`, from which the next start resumes.

    The first round starts from the weights in the folder `start`, or from initial weights.

    Raises:
        StateError: `out` holds rounds already and `resume` is off, or they belong to another
            experiment or started from other weights.
        WeightsError: `start` holds no such network.
    """

    def __init__(
        self, experiment: Experiment, out: Path, *, resume: bool, start: str | Path = ""
    ) -> None:
        self.experiment, self.out = experiment, out
        self.shared = experiment.select_shared(experiment.build_model())
        self.start = ""  # sha256 of the file that the first round starts from
        if start:
            self.shared, self.start = load_shared_start(experiment, Path(start), self.shared)
        self.best = self.mean = self.shared
        self.velocity = {n: torch.zeros_like(t) for n, t in self.shared.items()}
        self.history: list[dict[str, Any]] = []
        self.joined: list[int] = []
        if (out / STATE).is_file():
            if not resume:
                raise StateError(f"{out / STATE} holds rounds already: --resume continues them")
            self._load()

    @property
    def best_round(self) -> int:
        """The first round with the highest mean validation score; 0 before any."""
        scores = {r["round"]: r["summary"]["score"]["mean"] for r in self.history if r["summary"]}
        return max(scores, key=lambda index: scores[index]) if scores else 0

    def apply_momentum(self, mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the shared tensors after a round's aggregate, with server momentum (FedAvgM)."""
        momentum = self.experiment.config.strategy.momentum
        if not momentum:
            return mean
        moved = {n: mean[n] - t for n, t in self.shared.items()}
        self.velocity = {n: momentum * v + moved[n] for n, v in self.velocity.items()}
        return {n: t + self.velocity[n] for n, t in self.shared.items()}

    def average_rounds(self, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors to validate: `shared`, or with `average` the mean over rounds."""
        decay = self.experiment.config.strategy.average
        has_rounds = any(not r["skipped"] for r in self.history)
        if not decay or not has_rounds or self.experiment.is_solved:
            return shared
        return {n: decay * self.mean[n] + (1 - decay) * t for n, t in shared.items()}

    def add_round(self, entry: dict[str, Any], shared: dict[str, Tensor]) -> None:
        """Append a round's record and the shared tensors after it, and write the state."""
        if not entry["skipped"]:
            self.mean = self.average_rounds(shared)
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
        """Write the record of the whole training; `final` holds the best round's metrics."""
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
            raise StateError(
                f"{self.out / STATE} started from other weights: name the same --start"
            )
        self.history, self.joined = facts["history"], facts["joined"]
        if not self.best_round and len(self.history) >= self.experiment.num_rounds:
            self.history, self.joined = [], []  # no round was validated: all are run again
            return
        self.best = {n: tensors[f"best/{n}"] for n in self.shared}
        self.velocity = {n: tensors.get(f"velocity/{n}", v) for n, v in self.velocity.items()}
        self.shared = {n: tensors[f"last/{n}"] for n in self.shared}
        self.mean = {n: tensors.get(f"mean/{n}", t) for n, t in self.shared.items()}
