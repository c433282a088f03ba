"""Batch-norm statistics of averaged weights, measured on each client's scans (SiloBN).

Activations of averaged weights are smaller than those of the weights averaged, so the mean of the
clients' statistics does not fit them. Each client measures the statistics on its own scans when
weights arrive, and does not share them (Andreux et al. 2020).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.data.dataset import ScanDataset, batches

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
