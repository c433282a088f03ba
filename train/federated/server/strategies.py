"""Aggregation strategies: the weighted mean, or one of Flower's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    Strategy,
)
from torch import Tensor

from train.federated_config import StrategyConfig

COUNT = "num-examples"  # weighs a client in Eq. 23
EQUAL = "one"  # weighs all the same: a bound on one client's influence needs that
SECONDS = "seconds"  # a client's own time; shown, not kept: it differs between equal runs


class RunningMean:
    """sum_i n_i / n * theta_i (Eq. 23), one answer at a time, so that none is kept."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Add a client's tensors, learned from `count` scans."""
        for name, value in tensors.items():
            weighted = value.double() * count
            self._sums[name] = self._sums[name] + weighted if self._count else weighted
        self._count += count

    def result(self) -> dict[str, Tensor]:
        """The mean, float32."""
        return {name: (value / self._count).to(torch.float32) for name, value in self._sums.items()}


def is_mean(config: StrategyConfig) -> bool:
    """Return True for a mean that can be computed one answer at a time."""
    return config.is_mean and not config.secagg


def build(config: StrategyConfig, arrays: ArrayRecord, clients: int) -> Strategy:
    """Build the strategy of a round that started from `arrays`, with answers of `clients`."""
    if config.name == "fedmedian":
        return FedMedian()
    if config.name == "trimmed":
        return FedTrimmedAvg(beta=config.trim)
    if config.name == "krum":
        return Krum(num_malicious_nodes=config.malicious)
    weight = EQUAL if config.dp_clip else COUNT
    mean: FedAvg = (
        FedProx(proximal_mu=config.proximal_mu, weighted_by_key=weight)
        if config.name == "fedprox"
        else FedAvg(weighted_by_key=weight)
    )
    if not config.dp_clip:
        return mean
    private = DifferentialPrivacyServerSideFixedClipping(
        mean, config.dp_noise, config.dp_clip, clients
    )
    private.current_arrays = arrays  # what updates are measured from
    return private
