"""Phases of a preset: their files, networks and recipes, pooled or federated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from train.phases import PHASES
from train.phases.phase import Phase, Recipe, SystemFn

if TYPE_CHECKING:
    from train.config import Preset
    from train.data.corpus import Corpus

PARTS = tuple(phase for phase in PHASES if not phase.is_optional)
OPTIONAL = tuple(phase for phase in PHASES if phase.is_optional)
# phase -> its file; each follows the phases that it needs
FILES = {phase.name: phase.file for phase in PARTS}
OPTIONAL_FILES = {phase.name: phase.file for phase in OPTIONAL}
ALL_FILES = FILES | OPTIONAL_FILES


def find_phase(name: str) -> Phase:
    """Return the phase named `name`; raise KeyError if there is none."""
    return {phase.name: phase for phase in PHASES}[name]


def list_phases(preset: Preset) -> list[str]:
    """List the phases of a preset's system by name."""
    return [phase.name for phase in PARTS if phase.is_available(preset)]


def list_optional_phases(preset: Preset) -> list[str]:
    """List a preset's phases outside the system by name."""
    return [phase.name for phase in OPTIONAL if phase.is_available(preset)]


def build_network(phase: Phase, preset: Preset, seed: int) -> nn.Module:
    """Build a phase's network with its initial weights, which depend on preset and seed alone."""
    torch.manual_seed(seed + PHASES.index(phase))
    return phase.network(phase.shape(preset))


def build_recipe(
    phase: Phase,
    preset: Preset,
    corpus: Corpus,
    device: torch.device,
    system: SystemFn,
    *,
    calm: bool = False,
) -> Recipe:
    """Build loss, validation and settings of a phase for a corpus.

    `calm` trains a classifier without attacks. `system` returns the system with the named files
    trained, for phases that need other parts.

    Raises:
        WeightsError: such a file is missing.
        ValueError: the phase is solved in closed form.
    """
    if phase.recipe is None:
        raise ValueError(f"{phase.name!r} is solved in closed form, not in steps")
    return phase.recipe(phase.settings(preset), corpus, device, system, calm)
