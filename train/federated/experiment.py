"""The settings that server and clients must agree on before they train together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from train import recipes
from train.config import Preset, PresetError, read_preset
from train.federated.shared_parameters import personal_state, shared_state
from train.federated_config import FederatedConfig
from train.phases.phase import Phase


@dataclass(frozen=True)
class Experiment:
    """One phase of one federated training: a preset on a protocol's scans from one seed."""

    preset: Preset
    protocol: str
    seed: int
    phase: str = "mixture"

    def __post_init__(self) -> None:
        known = recipes.phases_of(self.preset) + recipes.optional_phases_of(self.preset)
        if self.phase not in known:
            raise PresetError(
                f"phase must be one of {', '.join(known)} for preset {self.preset.name!r}, "
                f"got {self.phase!r}"
            )

    @property
    def step(self) -> Phase:
        """The training phase."""
        return recipes.phase_named(self.phase)

    @property
    def config(self) -> FederatedConfig:
        """The preset's federated part."""
        return self.preset.federated

    @property
    def num_rounds(self) -> int:
        """T of this phase."""
        return self.config.rounds_of(self.phase)

    @property
    def adv_share(self) -> float:
        """Share of a client's training scans that are attacked (pFedDef's G)."""
        loss = self.preset.classifier.loss
        return 1 - loss.adv_clean if self.step.is_adversarial and loss.adv_eps else 0.0

    @property
    def batch_size(self) -> int:
        """Scans of one step of this phase; 1 where there are no steps."""
        return 1 if self.is_solved else int(self.step.settings(self.preset).fit.batch_size)

    @property
    def is_solved(self) -> bool:
        """True for a phase that is solved in closed form: one round of all clients, no gradient."""
        return self.step.is_solved

    @property
    def is_all_shared(self) -> bool:
        """True where clients keep nothing: a client that missed a round has missed nothing."""
        return not self.personal(self.model())

    @cached_property
    def family(self) -> str:
        """Digest of the system that this phase belongs to: shapes, partition, shared tensors.

        Phases of one family build on each other.
        """
        config = self.config
        parts = [phase for phase in recipes.PARTS if not phase.is_solved]
        return _digest(
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

        Rounds, waiting and the mean over rounds are left out: the server alone decides them.
        """
        federated = asdict(self.config)
        for name in ("num_rounds", "rounds", "timeout"):
            del federated[name]
        del federated["strategy"]["average"]
        learn = asdict(self.step.settings(self.preset))
        facts: dict[str, Any] = {
            "family": self.family,
            "federated": federated,
            "learn": learn,
            "phase": self.phase,
        }
        if self.is_solved:  # on one autoencoder's tokens: on another's it means nothing
            facts["beneath"] = [asdict(self.preset.mae), self.config.rounds_of("mae")]
        return _digest(facts)

    def model(self) -> nn.Module:
        """Build the phase's network with the first weights of every party."""
        return recipes.build_network(self.step, self.preset, self.seed)

    def shared(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the shared tensors of a model."""
        return shared_state(model, self._share, self.config.batch_norm)

    def personal(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the personal tensors of a model."""
        return personal_state(model, self._share, self.config.batch_norm)

    @property
    def _share(self) -> str:
        """The preset's `share`; out-of-distribution heads stay personal where they have no mean."""
        keeps = self.is_solved and not self.config.strategy.is_mean
        return "none" if keeps else self.config.share


def read_experiment(preset: str, protocol: str, seed: int, phase: str = "mixture") -> Experiment:
    """Read the experiment of a preset's name or path.

    Raises:
        PresetError: there is no such preset, it has no such phase, or the preset is wrong.
    """
    return Experiment(read_preset(preset), protocol, seed, phase)


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
