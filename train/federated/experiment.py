"""Experiment: the settings that server and clients must share to train together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from train import recipes
from train.config import Preset, PresetError, read_preset
from train.federated import shared_parameters
from train.federated_config import FederatedConfig
from train.phases.phase import Phase


class FederationError(RuntimeError):
    """Federation that cannot continue."""


@dataclass(frozen=True)
class Experiment:
    """One phase of one federated training: a preset on a protocol's scans from one seed."""

    preset: Preset
    protocol: str
    seed: int
    phase: str = "mixture"

    def __post_init__(self) -> None:
        known = recipes.list_phases(self.preset) + recipes.list_optional_phases(self.preset)
        if self.phase not in known:
            raise PresetError(
                f"phase must be one of {', '.join(known)} for preset {self.preset.name!r}, "
                f"got {self.phase!r}"
            )

    @property
    def step(self) -> Phase:
        """The training phase."""
        return recipes.find_phase(self.phase)

    @property
    def config(self) -> FederatedConfig:
        """The preset's federated part."""
        return self.preset.federated

    @property
    def num_rounds(self) -> int:
        """T of this phase."""
        return self.config.count_rounds(self.phase)

    @property
    def adv_share(self) -> float:
        """Share of adversarial examples in a client's training (pFedDef's G)."""
        loss = self.preset.classifier.loss
        return 1 - loss.adv_clean if self.step.is_adversarial and loss.adv_eps else 0.0

    @property
    def batch_size(self) -> int:
        """Scans of one step of this phase; 1 for a phase without steps."""
        return 1 if self.is_solved else int(self.step.settings(self.preset).fit.batch_size)

    @property
    def is_solved(self) -> bool:
        """True for a phase that is solved in closed form: one round of all clients, no gradient."""
        return self.step.is_solved

    @cached_property
    def is_all_shared(self) -> bool:
        """True if clients keep no personal tensors, so that a missed round costs them none."""
        return not self.select_personal(self.build_model())

    @cached_property
    def family(self) -> str:
        """Identifies the system that this phase belongs to: shapes, partition, shared tensors.

        Phases of one family build on each other.
        """
        config = self.config
        parts = [phase for phase in recipes.PARTS if not phase.is_solved]
        return _compute_digest(
            {
                "partition": asdict(config.partition),
                "protocol": self.protocol,
                "seed": self.seed,
                "shapes": {phase.name: phase.stored_shape(self.preset) for phase in parts},
                "share": [config.share, config.batch_norm],
            }
        )

    @cached_property
    def digest(self) -> str:
        """Names the experiment: equal on two machines if, and only if, they can train together.

        Rounds, timeout, the mean over rounds and whether clients count alike are left out: the
        server alone decides them.
        """
        federated = asdict(self.config)
        for name in ("num_rounds", "rounds", "timeout"):
            del federated[name]
        for name in ("average", "equal"):
            del federated["strategy"][name]
        settings = asdict(self.step.settings(self.preset))
        facts: dict[str, Any] = {
            "family": self.family,
            "federated": federated,
            "learn": settings,
            "phase": self.phase,
        }
        if self.is_solved:  # valid for the tokens of one autoencoder only
            facts["beneath"] = [asdict(self.preset.mae), self.config.count_rounds("mae")]
        return _compute_digest(facts)

    def build_model(self) -> nn.Module:
        """Build the phase's network with its initial weights, equal for all parties."""
        return recipes.build_network(self.step, self.preset, self.seed)

    def select_shared(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors that are sent to the server."""
        return shared_parameters.select_shared(model, self._share, self.config.batch_norm)

    def select_personal(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors that stay with the client."""
        return shared_parameters.select_personal(model, self._share, self.config.batch_norm)

    @property
    def _share(self) -> str:
        """The preset's share; an out-of-distribution head is shared wherever a mean is taken."""
        is_local = self.is_solved and not self.config.strategy.is_mean
        return "none" if is_local else self.config.share


def read_experiment(preset: str, protocol: str, seed: int, phase: str = "mixture") -> Experiment:
    """Read the experiment of a preset's name or path.

    Raises:
        PresetError: there is no such preset, it has no such phase, or the preset is invalid.
    """
    return Experiment(read_preset(preset), protocol, seed, phase)


def _compute_digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
