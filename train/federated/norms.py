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

from core.checkpoint import WeightsError, halve
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
    reader: int = 0  # client that reads by default: all of its statistics are those of all

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of all hospitals must be in [0, 1], got {self.share}")

    def apply(self, system: MedFedPure, client: int) -> None:
        """Set the statistics of client `client` in its system, in place."""
        share = 1.0 if client == self.reader else self.share
        for file, own in self.own.items():
            parts = [share / len(own)] * len(own)
            parts[client] += 1 - share
            mixed = merge_statistics(own, parts)
            if self.share == 1:  # stored with the shared parts, in half precision
                mixed = {name: halve(name, tensor).float() for name, tensor in mixed.items()}
            system.get_submodule(PARTS[file]).load_state_dict(mixed, strict=False)

    def list_shared(self) -> dict[str, set[str]]:
        """Return the names of the statistics that are equal at all clients, by file."""
        if self.share < 1:
            return {}
        return {file: set(own[0]) for file, own in self.own.items()}


def read_norms(
    experiment: Experiment, states: Path, kept: Container[str], share: float, reader: int
) -> Norms:
    """Read the statistics of all clients from their state folders, but of files in `kept`.

    Raises:
        StateError: a client has not finished a phase.
        ValueError: the clients do not share their networks.
    """
    if experiment.config.share == "none":
        raise ValueError("statistics can be merged only of networks that the hospitals share")
    found = {}
    for phase in list_phases(experiment.preset):
        if FILES[phase] in kept:
            continue
        own = replace(experiment, phase=phase)
        clients = read_statistics(own, states)
        if clients[0]:
            found[FILES[phase]] = clients
    return Norms(found, share, reader)


def read_statistics(experiment: Experiment, states: Path) -> list[Statistics]:
    """Read the statistics of all clients of an experiment's phase from their state folders.

    Raises:
        StateError: a client has not finished the phase.
    """
    return [
        select_statistics(ClientState(states, experiment, client).read_finished(experiment))
        for client in range(experiment.config.partition.num_clients)
    ]


@torch.no_grad()
def measure_norms(
    experiment: Experiment, corpus: Corpus, weights: Path, share: float, reader: int
) -> Norms:
    """Measure the statistics of exported weights anew, on each client's own training scans.

    Raises:
        WeightsError: the weights lack a hospital.
    """
    found: dict[str, list[Statistics]] = {}
    device = pick_device()
    systems = load_all(weights, device)
    clients = range(experiment.config.partition.num_clients)
    if lacking := [client + 1 for client in clients if client + 1 not in systems]:
        raise WeightsError(f"{weights} lacks hospital {lacking[0]}: statistics of all need it")
    for client in clients:
        own = select_client_corpus(corpus, experiment.config.partition, client)
        scans = own.train.thin(BN_SCANS_EVAL, truncate=True)
        for file, place in PARTS.items():
            part = systems[client + 1].get_submodule(place)
            if any(isinstance(module, _BatchNorm) for module in part.modules()):
                measure_statistics(part, scans, device)
                state = {n: t.clone() for n, t in part.state_dict().items()}
                found.setdefault(file, []).append(select_statistics(state))
    return Norms(found, share, reader)
