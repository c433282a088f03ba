"""Normalisation statistics of exported hospitals: each one's own, mixed with those of all together.

A network that was trained with a hospital's own statistics reads that hospital's scans best with
them, and scans of other hospitals with statistics of several. The hospital that reads by default
reads scans from elsewhere: it takes those of all.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from core.checkpoint import halve
from core.pipeline import MedFedPure
from core.weights import PARTS, load_all
from train.data.corpus import Corpus
from train.data.partition import select_client_corpus
from train.device import pick_device
from train.federated.client.batch_norm import (
    BN_SCANS_EVAL,
    measure_statistics,
    merge_statistics,
    select_statistics,
)
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment
from train.recipes import FILES, list_phases

Statistics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Norms:
    """Statistics by file of each client, of which a share is that of all clients together."""

    own: Mapping[str, list[Statistics]]  # file -> of each client
    share: float  # of all clients together, each counting alike; the rest is the client's own
    default: int | None = None  # client that reads scans from elsewhere: with those of all

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of all hospitals must be in [0, 1], got {self.share}")

    def apply(self, system: MedFedPure, client: int) -> None:
        """Set the statistics of client `client` in its system, in place."""
        share = 1.0 if client == self.default else self.share
        for file, own in self.own.items():
            together = merge_statistics(own)
            mixed = merge_statistics([own[client], together], [1 - share, share])
            if self.share == 1:  # stored with the shared parts, in half precision
                mixed = {name: halve(name, tensor).float() for name, tensor in mixed.items()}
            system.get_submodule(PARTS[file]).load_state_dict(mixed, strict=False)

    def list_shared(self) -> dict[str, set[str]]:
        """Return the names of the statistics that are equal at all clients, by file."""
        if self.share < 1:
            return {}
        return {file: set(own[0]) for file, own in self.own.items()}


def read_norms(
    experiment: Experiment,
    states: Path,
    kept: Container[str],
    share: float,
    default: int | None = None,
) -> Norms:
    """Read the statistics of all clients from their state folders, but of files in `kept`.

    Raises:
        StateError: a client has not finished a phase.
    """
    found = {}
    for phase in list_phases(experiment.preset):
        if FILES[phase] in kept:
            continue
        own = replace(experiment, phase=phase)
        clients: list[Statistics] = [
            select_statistics(ClientState(states, own, client).read_finished(own))
            for client in range(experiment.config.partition.num_clients)
        ]
        if clients[0]:
            found[FILES[phase]] = clients
    return Norms(found, share, default)


@torch.no_grad()
def measure_norms(
    experiment: Experiment,
    corpus: Corpus,
    weights: Path,
    share: float,
    default: int | None = None,
) -> Norms:
    """Measure the statistics of exported weights anew, on each client's own training scans.

    Raises:
        WeightsError: there are no weights of hospitals.
    """
    found: dict[str, list[Statistics]] = {}
    device = pick_device()
    for number, system in sorted(load_all(weights, device).items(), key=lambda pair: pair[0] or 0):
        own = select_client_corpus(corpus, experiment.config.partition, (number or 1) - 1)
        scans = own.train.thin(BN_SCANS_EVAL, truncate=True)
        for file, place in PARTS.items():
            part = system.get_submodule(place)
            if any(isinstance(module, _BatchNorm) for module in part.modules()):
                measure_statistics(part, scans, device)
                state = {n: t.clone() for n, t in part.state_dict().items()}
                found.setdefault(file, []).append(select_statistics(state))
    return Norms(found, share, default)
