"""Aggregation strategies: the running mean of Eq. 23, and Flower's strategies by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

from train.federated.metrics import EQUAL_WEIGHT, SCAN_COUNT
from train.federated_config import StrategyConfig

# name -> the strategy; the second argument is the metric that weighs a client in a mean
BUILDERS: dict[str, Callable[[StrategyConfig, str], Strategy]] = {
    "fedavg": lambda config, weight: FedAvg(weighted_by_key=weight),
    "fedprox": lambda config, weight: FedProx(
        proximal_mu=config.proximal_mu, weighted_by_key=weight
    ),
    "fedmedian": lambda config, weight: FedMedian(),
    "trimmed": lambda config, weight: FedTrimmedAvg(beta=config.trim),
    "krum": lambda config, weight: Krum(num_malicious_nodes=config.malicious),
}


class RunningMean:
    """sum_i n_i / n * theta_i (Eq. 23), one reply at a time: one client's tensors in memory."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Add a client's tensors with weight `count`, such as its number of training scans."""
        for name, value in tensors.items():
            weighted = value.double() * count
            self._sums[name] = self._sums[name] + weighted if self._count else weighted
        self._count += count

    def result(self) -> dict[str, Tensor]:
        """Return the mean, float32."""
        return {name: (value / self._count).to(torch.float32) for name, value in self._sums.items()}


def is_running_mean(config: StrategyConfig) -> bool:
    """Return True if the aggregation is a mean that can take one reply at a time."""
    return config.is_mean and not config.secagg


def build_strategy(config: StrategyConfig, arrays: ArrayRecord, clients: int) -> Strategy:
    """Build the strategy of a round that started from `arrays` and was answered by `clients`."""
    strategy = BUILDERS[config.name](config, EQUAL_WEIGHT if config.dp_clip else SCAN_COUNT)
    if not config.dp_clip:
        return strategy
    private = DifferentialPrivacyServerSideFixedClipping(
        strategy, config.dp_noise, config.dp_clip, clients
    )
    private.current_arrays = arrays  # the updates are measured from these
    return private
