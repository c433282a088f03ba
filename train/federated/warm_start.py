"""Warm start: trained networks and personal attention that a federation's first round uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from core import checkpoint
from core.checkpoint import WeightsError
from core.weights import PARTS, load_system_file, system_file_name
from train.data import split
from train.federated.experiment import Experiment
from train.federated.shared_parameters import is_statistic
from train.federated.state_file import StateError
from train.recipes import ALL_FILES


def load_shared_start(
    experiment: Experiment, folder: Path, fresh: dict[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Load the phase's shared tensors from a folder of weights, and the file's sha256.

    Tensors that the file does not hold come from `fresh`. Statistics in it that the hospitals do
    not share (`export --merge-norm`) are left: each hospital measures its own.

    Raises:
        WeightsError: `folder` holds no such network, or one of another split.
    """
    file = ALL_FILES[experiment.phase]
    loaded = checkpoint.load_verified(file, folder).state_dict
    loaded = {n: t for n, t in loaded.items() if n in fresh or not is_statistic(n)}
    _check_protocol(experiment, folder, file)
    shapes = {n: tuple(t.shape) for n, t in fresh.items()}
    if not loaded or any(shapes.get(n) != tuple(t.shape) for n, t in loaded.items()):
        raise WeightsError(
            f"{folder / file} holds another network than preset {experiment.preset.name!r} trains"
        )
    started = {n: loaded[n].to(t.dtype) if n in loaded else t for n, t in fresh.items()}
    return started, checkpoint.read_manifest(folder)[file].sha256


class WarmStart(NamedTuple):
    """A hospital's personal tensors to start from, and the sha256 of the networks' file.

    Where `folder` is given its weights stand in for phases that the hospital has not finished.
    """

    personal: dict[str, Tensor]
    sha256: str
    folder: Path | None = None

    def check(self, theirs: str, client: int) -> None:
        """Raise StateError if the federation starts from another file than this hospital."""
        if theirs != self.sha256:
            raise StateError(
                f"the federation starts from {'other weights' if theirs else 'no weights'}, client "
                f"{client} from {'some' if self.sha256 else 'none'}: both need the same --start"
            )


def load_personal_start(experiment: Experiment, folder: Path, client: int) -> WarmStart:
    """Load the phase's personal tensors of client number `client` from a folder of weights.

    Empty if the folder has no file of that hospital, or the phase has no personal tensors.
    Statistics may be missing: the hospital measures them.

    Raises:
        WeightsError: the file is another hospital's, of another split, network or federation.
    """
    phase, file = ALL_FILES[experiment.phase], system_file_name(client + 1)
    files = checkpoint.read_manifest(folder)
    sha256 = files[phase].sha256 if phase in files else ""
    if phase not in PARTS or file not in files:
        return WarmStart({}, sha256, folder if file in files else None)
    place = f"{PARTS[phase]}."
    loaded = load_system_file(folder, client + 1)
    _check_protocol(experiment, folder, file)
    if loaded.config["info"].get("federated") != json.loads(
        json.dumps(asdict(experiment.config.partition))
    ):
        raise WeightsError(
            f"{folder / file} is of a federation whose hospitals hold other scans than those of "
            f"preset {experiment.preset.name!r}"
        )
    state = {n[len(place) :]: t for n, t in loaded.state_dict.items() if n.startswith(place)}
    fresh = experiment.select_personal(experiment.build_model())
    shapes = {n: t.shape for n, t in fresh.items() if n in state or not is_statistic(n)}
    if {n: t.shape for n, t in state.items()} != shapes:
        raise WeightsError(
            f"{folder / file} holds another attention than preset {experiment.preset.name!r} trains"
        )
    return WarmStart(state, sha256, folder)


def _check_protocol(experiment: Experiment, folder: Path, file: str) -> None:
    theirs = checkpoint.read_manifest(folder)[file].protocol
    if experiment.protocol in split.PROTOCOLS and theirs != experiment.protocol:
        raise WeightsError(
            f"{folder / file} was trained on protocol {theirs!r}: its training scans may be test "
            f"scans of {experiment.protocol!r}"
        )
