"""E-step and M-step of FedEM (Marfoq et al. 2021) for a mixture whose gate is the client's.

The expert that generated a scan is a latent variable: the E-step estimates it from the experts'
losses, the M-step weighs each expert's loss by its responsibility.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.moe import MixtureOfExperts, MixtureOutput
from train.data.dataset import ScanDataset, batches
from train.device import autocast


def compute_responsibilities(output: MixtureOutput, y: Tensor) -> Tensor:
    """Return q_k(s) = softmax_k(log pi_k - loss_k(s)), (B, K): the experts' responsibilities."""
    return F.softmax(output.attention.clamp_min(1e-12).log() - _compute_losses(output, y), dim=1)


def em_loss(output: MixtureOutput, y: Tensor) -> Tensor:
    """Return the M-step's loss: mean_s sum_k q_k(s) loss_k(s), no gradient through q.

    Differs from FedEM: q is computed on each batch, not once a round.
    """
    return (compute_responsibilities(output, y).detach() * _compute_losses(output, y)).sum(1).mean()


@torch.no_grad()
def estimate_mixture_weights(
    model: MixtureOfExperts, data: ScanDataset, device: torch.device, batch_size: int = 100
) -> Tensor:
    """Take the E-step over a client's scans: pi_k = mean_s q_k(s), (K,).

    As in FedEM all scans weigh the same and none is augmented. The model runs in eval mode and is
    left in its previous mode.

    Raises:
        ValueError: there are no scans.
    """
    if not len(data):
        raise ValueError("no scans to weigh the experts by")
    was_training = model.training
    model.eval()
    total = torch.zeros(len(model.experts), dtype=torch.float64)
    for rows in batches(len(data), batch_size):
        x, y = data.batch(rows, device)
        with autocast(device):
            output = model.outputs(x)
        total += compute_responsibilities(output, y).double().sum(0).cpu()
    model.train(was_training)
    return (total / len(data)).float()


def _compute_losses(output: MixtureOutput, y: Tensor) -> Tensor:
    """Return the cross-entropy of each expert, (B, K)."""
    return F.cross_entropy(
        output.expert_logits.transpose(1, 2), y[:, None].expand(-1, output.expert_logits.shape[1]),
        reduction="none",
    )  # fmt: skip
