"""Training phase: its network, loss, validation, preset table and weights file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from core.pipeline import MedFedPure, PipelineConfig
from core.scan import SIZE
from train.data.dataset import ScanDataset
from train.trainer import FitConfig, Loss, ValidateFn

if TYPE_CHECKING:
    from train.data.corpus import Corpus


class HasSystem(Protocol):
    """Part of a preset that a phase reads."""

    @property
    def system(self) -> PipelineConfig:
        """Shapes of all parts."""


SystemFn = Callable[[Iterable[str]], MedFedPure]  # the system with the named files trained


@dataclass(frozen=True)
class Recipe:
    """Input of `train.trainer.fit`."""

    fit: FitConfig
    loss: Loss
    validate: ValidateFn


class Solver(Protocol):
    """Solver that fits a network in closed form instead of by gradient steps."""

    def solve(self, head: Any, train: ScanDataset, seed: int) -> float:
        """Fit `head` in place and return its mean loss."""

    def validate(self, head: Any) -> dict[str, float]:
        """Return metrics on validation scans; 'score' decides."""


# arguments: the preset's table, corpus, device, `SystemFn`, and True for a warm-up without attacks
RecipeFn = Callable[[Any, "Corpus", torch.device, SystemFn, bool], Recipe]
# arguments: the preset's table, validation scans, device, `SystemFn`
SolverFn = Callable[[Any, ScanDataset, torch.device, SystemFn], Solver]


@dataclass(frozen=True)
class Phase:
    """Training of one part of the system; commands, presets and files derive from it.

    Args:
        name: of the command `python -m train NAME` and of the federation's phase.
        file: the weights file that it writes.
        help: one line for `--help`.
        config: dataclass of its table in a preset.
        shape: configuration of its network in a preset.
        network: builds the network from that shape.
        recipe: loss, validation and settings of `fit`, for phases that learn in gradient steps.
        solver: for phases that are solved in closed form, in one federated round.
        table: name of its table in a preset, where it is not `name`.
        is_optional: its file is no part of the system, which works without it.
        needs_brain_scans: only presets that read brain scans (1, 224, 224) have it.
        is_adversarial: its training scans are attacked (warm-up rounds, resources, purification).
    """

    name: str
    file: str
    help: str
    config: type
    shape: Callable[[Any], Any]
    network: Callable[[Any], nn.Module]
    recipe: RecipeFn | None = None
    solver: SolverFn | None = None
    table: str = ""
    is_optional: bool = False
    needs_brain_scans: bool = False
    is_adversarial: bool = False

    @property
    def is_solved(self) -> bool:
        """True for a phase without gradient steps: one federated round of all clients."""
        return self.solver is not None

    @property
    def section(self) -> str:
        """Name of the phase's table in a preset."""
        return self.table or self.name

    def settings(self, preset: HasSystem) -> Any:
        """Return the phase's table of a preset."""
        return getattr(preset, self.section)

    def stored_shape(self, preset: HasSystem) -> dict[str, Any]:
        """Return the network's configuration as the weights file stores it."""
        shape = self.shape(preset)
        return asdict(shape) if is_dataclass(shape) and not isinstance(shape, type) else {}

    def is_available(self, preset: HasSystem) -> bool:
        """Return True where a preset's scans fit this phase."""
        moe = preset.system.moe
        return not self.needs_brain_scans or (moe.in_chans, moe.img_size) == (1, SIZE)
