"""The phases of a preset: their files, networks and recipes, pooled or federated."""

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
# phase -> its file; each comes after those that it learns from
FILES = {phase.name: phase.file for phase in PARTS}
OPTIONAL_FILES = {phase.name: phase.file for phase in OPTIONAL}
ALL_FILES = FILES | OPTIONAL_FILES


def phase_named(name: str) -> Phase:
    """Return the phase of a name. Raises KeyError for an unknown one."""
    return {phase.name: phase for phase in PHASES}[name]


def phases_of(preset: Preset) -> list[str]:
    """Names of the phases of a preset's system."""
    return [phase.name for phase in PARTS if phase.is_available(preset)]


def optional_phases_of(preset: Preset) -> list[str]:
    """Names of a preset's phases whose files are no part of the system."""
    return [phase.name for phase in OPTIONAL if phase.is_available(preset)]


def build_network(phase: Phase, preset: Preset, seed: int) -> nn.Module:
    """Build a phase's network with the first weights of every training of that preset and seed."""
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

    `calm` leaves out the attacks of a classifier's training. `system` gives the whole system with
    the named files trained: a phase may learn from others.

    Raises:
        WeightsError: such a file is not there yet.
        ValueError: the phase is solved in closed form.
    """
    if phase.recipe is None:
        raise ValueError(f"{phase.name!r} is not learned in steps")
    return phase.recipe(phase.settings(preset), corpus, device, system, calm)
