"""Batch-norm statistics of averaged weights, measured on each client's scans (SiloBN).

Activations of averaged weights are smaller than those of the weights averaged, so the mean of the
clients' statistics does not fit them. Each client measures the statistics on its own scans when
weights arrive, and does not share them (Andreux et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.data.dataset import ScanDataset, batches
from train.federated.shared_parameters import STATISTICS

MEAN, VARIANCE = STATISTICS
BN_SCANS_TRAIN, BN_SCANS_EVAL = 32, 256  # before training, whose batches follow; before evaluation
BATCH_SIZE = 64


@torch.no_grad()
def measure_statistics(model: nn.Module, data: ScanDataset, device: torch.device) -> None:
    """Set all running means and variances in place to those of the scans."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for rows in batches(len(data), BATCH_SIZE):
        if len(rows) > 1:
            model(data.batch(rows, device)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def select_statistics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the running means and variances of a network's tensors."""
    return {name: t for name, t in state.items() if name.split(".")[-1] in STATISTICS}


def merge_statistics(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Return the statistics of several clients' scans together, from those of each.

    The mean is the mean of the clients' means m; the variance is that of the mixture: the mean of
    v + m^2, less the square of the mean.

    Args:
        states: the clients' networks, by name of the tensor.
        weights: the clients' shares, of sum 1; by default all count alike.
    """
    shares = torch.tensor(weights or [1 / len(states)] * len(states), dtype=torch.float64)
    merged = {}
    for name in states[0]:
        if name.split(".")[-1] != MEAN:
            continue
        other = f"{name.removesuffix(MEAN)}{VARIANCE}"
        means = torch.stack([state[name].double().cpu() for state in states])
        squares = torch.stack([state[other].double().cpu() for state in states]) + means.square()
        mean = torch.tensordot(shares, means, 1)
        merged[name] = mean.to(states[0][name])
        variance = torch.tensordot(shares, squares, 1) - mean.square()
        merged[other] = variance.clamp_min(0).to(states[0][other])
    return merged
