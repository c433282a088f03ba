"""Batch-norm statistics, measured on a client's scans for the averaged weights that arrive.

Averaged weights send out smaller signals than the weights that were averaged, so that the mean of
the clients' statistics fits neither. Each client measures them on its own scans when weights
arrive, and keeps them to itself (SiloBN, Andreux et al. 2020).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.data.dataset import ScanDataset, batches

FEW, MANY = 32, 256  # scans that will do while a round's own batches follow, and for reading
BATCH = 64


@torch.no_grad()
def measure(model: nn.Module, data: ScanDataset, device: torch.device) -> None:
    """Sets all running means and variances in place to those of the scans."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    for rows in batches(len(data), BATCH):
        if len(rows) > 1:
            model(data.batch(rows, device)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
