"""FedProx (Li et al. 2020): a loss that pulls local steps towards the round's shared tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.data.dataset import Sample
from train.trainer import Loss, ScheduledLoss


def add_proximal_term(function: Loss, anchor: Mapping[str, Tensor], mu: float) -> Loss:
    """Return the loss plus mu / 2 * |theta - theta_round|^2 over the shared parameters."""
    if isinstance(function, ScheduledLoss):
        scheduled = function

        def pulled(
            model: nn.Module, sample: Sample, generator: torch.Generator, t: float
        ) -> Tensor:
            return _pull(model, anchor, mu) + scheduled.function(model, sample, generator, t)

        return ScheduledLoss(pulled)
    plain = function

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        return _pull(model, anchor, mu) + plain(model, sample, generator)

    return loss


def _pull(model: nn.Module, anchor: Mapping[str, Tensor], mu: float) -> Tensor:
    pulls = [
        (parameter - anchor[name].to(parameter)).square().sum()
        for name, parameter in model.named_parameters()
        if name in anchor
    ]
    return mu / 2 * torch.stack(pulls).sum()
