"""What server and clients must agree on before they train together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from core.moe import MixtureOfExperts
from train.config import Preset, read_preset
from train.federated.config import FederatedConfig
from train.federated.sharing import personal_state, shared_state


@dataclass(frozen=True)
class Experiment:
    """One federated training: a preset on a protocol's scans from one seed."""

    preset: Preset
    protocol: str
    seed: int

    @property
    def config(self) -> FederatedConfig:
        """The preset's federated part."""
        return self.preset.federated

    @cached_property
    def digest(self) -> str:
        """Names the experiment: equal on two machines if, and only if, they can train together.

        Rounds and waiting are left out: a finished training may go on for longer.
        """
        federated = asdict(self.config)
        for name in ("num_rounds", "timeout"):
            del federated[name]
        settings = {
            "federated": federated,
            "moe": asdict(self.preset.system.moe),
            "protocol": self.protocol,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def model(self) -> MixtureOfExperts:
        """The mixture as every party starts with it."""
        torch.manual_seed(self.seed)
        return MixtureOfExperts(self.preset.system.moe)

    def shared(self, model: MixtureOfExperts) -> dict[str, Tensor]:
        """Tensors that travel."""
        return shared_state(model, self.config.batch_norm)

    def personal(self, model: MixtureOfExperts) -> dict[str, Tensor]:
        """Tensors that stay."""
        return personal_state(model, self.config.batch_norm)


def read_experiment(preset: str, protocol: str, seed: int) -> Experiment:
    """The experiment of a preset's name or path.

    Raises:
        PresetError: there is no such preset, or it is wrong.
    """
    return Experiment(read_preset(preset), protocol, seed)
