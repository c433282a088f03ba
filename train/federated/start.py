"""Trained weights that a federation's first round goes on from: networks, each one's attention."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from core import checkpoint
from core.checkpoint import WeightsError
from core.system import PARTS, ties_file
from train import split
from train.federated.experiment import Experiment
from train.recipes import ALL_FILES


def start_shared(
    experiment: Experiment, folder: Path, fresh: dict[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """The shared tensors that the folder's weights hold of the phase, and the file's sha256.

    What they do not hold, as statistics that never travelled there, is as in `fresh`.

    Raises:
        WeightsError: `folder` holds no such network, or one of another split.
    """
    file = ALL_FILES[experiment.phase]
    found = _verified(experiment, folder, file)
    shapes = {n: tuple(t.shape) for n, t in fresh.items()}
    if not found or any(shapes.get(n) != tuple(t.shape) for n, t in found.items()):
        raise WeightsError(
            f"{folder / file} holds another network than preset {experiment.preset.name!r} trains"
        )
    started = {n: found[n].to(t.dtype) if n in found else t for n, t in fresh.items()}
    return started, checkpoint.read_manifest(folder)[file].sha256


def start_own(experiment: Experiment, folder: Path, client: int) -> dict[str, Tensor]:
    """What client number `client` kept for itself of the phase, as its file among the weights says.

    Nothing where the weights have no file of that hospital, or it keeps nothing of this phase.

    Raises:
        WeightsError: the file is of another split, or of another network.
    """
    file, place = ties_file(client + 1), PARTS.get(ALL_FILES[experiment.phase])
    if place is None or file not in checkpoint.read_manifest(folder):
        return {}
    found = _verified(experiment, folder, file)
    fresh = experiment.personal(experiment.model())
    own = {n: found[f"{place}.{n}"] for n in fresh if f"{place}.{n}" in found}
    if any(own[n].shape != fresh[n].shape for n in own):
        raise WeightsError(
            f"{folder / file} holds another attention than preset {experiment.preset.name!r} trains"
        )
    return own


def _verified(experiment: Experiment, folder: Path, file: str) -> dict[str, Tensor]:
    found = checkpoint.load_verified(file, folder).state_dict
    theirs = checkpoint.read_manifest(folder)[file].protocol
    if experiment.protocol in split.PROTOCOLS and theirs != experiment.protocol:
        raise WeightsError(
            f"{folder / file} was trained on protocol {theirs!r}: its training scans may be test "
            f"scans of {experiment.protocol!r}"
        )
    return found
