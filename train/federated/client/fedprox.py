"""FedProx on the client (Li et al. 2020): a penalty on the distance to the round's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.trainer import LossFn


def proximal(function: LossFn, anchor: Mapping[str, Tensor], mu: float) -> LossFn:
    """Add mu / 2 * |theta - theta_round|^2 over the shared tensors to a loss (FedProx)."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        pulls = [
            (parameter - anchor[name].to(parameter)).square().sum()
            for name, parameter in model.named_parameters()
            if name in anchor
        ]
        return function(model, x, y, generator) + mu / 2 * torch.stack(pulls).sum()

    return loss
