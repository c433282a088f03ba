"""FedProx (Li et al. 2020): a loss that pulls local steps towards the round's shared tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.data.dataset import Sample
from train.trainer import LossFn


def add_proximal_term(function: LossFn, anchor: Mapping[str, Tensor], mu: float) -> LossFn:
    """Return the loss plus mu / 2 * |theta - theta_round|^2 over the shared parameters."""

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        pulls = [
            (parameter - anchor[name].to(parameter)).square().sum()
            for name, parameter in model.named_parameters()
            if name in anchor
        ]
        return function(model, sample, generator) + mu / 2 * torch.stack(pulls).sum()

    return loss
