"""FedEM's two steps (Marfoq et al. 2021) for a mixture whose gate is the client's.

Which expert made a scan is hidden: the E-step guesses it from the experts' losses, the M-step
teaches each expert the scans by the share that it is guessed to have in them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.moe import MixtureOfExperts, MixtureOutput
from train.data.dataset import ScanDataset, batches
from train.device import autocast


def shares(output: MixtureOutput, y: Tensor) -> Tensor:
    """q_k(s) = softmax_k(log pi_k - loss_k(s)), (B, K): each expert's share in each scan."""
    return F.softmax(output.attention.clamp_min(1e-12).log() - _losses(output, y), dim=1)


def em_loss(output: MixtureOutput, y: Tensor) -> Tensor:
    """The M-step: mean_s sum_k q_k(s) loss_k(s), no gradient through q.

    Differs from FedEM: q is found on each batch from the experts as they are, not once a round.
    """
    return (shares(output, y).detach() * _losses(output, y)).sum(1).mean()


@torch.no_grad()
def mixture_weights(
    model: MixtureOfExperts, data: ScanDataset, device: torch.device, batch_size: int = 100
) -> Tensor:
    """The E-step over a client's scans: pi_k = mean_s q_k(s), (K,), for `ClientGate.set_weights`.

    As in FedEM each scan counts the same, whatever its weight in training, and none is changed. The
    model is read as it would be used, and left in the mode that it was in.

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
        total += shares(output, y).double().sum(0).cpu()
    model.train(was_training)
    return (total / len(data)).float()


def _losses(output: MixtureOutput, y: Tensor) -> Tensor:
    """Cross-entropy of each expert, (B, K)."""
    return F.cross_entropy(
        output.expert_logits.transpose(1, 2), y[:, None].expand(-1, output.expert_logits.shape[1]),
        reduction="none",
    )  # fmt: skip
