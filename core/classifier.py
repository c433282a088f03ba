"""Calibrated classifier: temperature scaling and a bias that puts the operating point at .5."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.moe import MixtureOfExperts


class Calibrated(nn.Module):
    """Classifier with output log softmax(logits / temperature + bias) (Guo et al. 2017).

    The bias moves the operating point. Both are chosen on validation scans after training; 1 and 0
    leave the mixture unchanged.
    """

    temperature: Tensor
    bias: Tensor

    def __init__(self, model: MixtureOfExperts) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("bias", torch.zeros(model.config.num_classes))

    def calibrate(self, logits: Tensor) -> Tensor:
        """Calibrate logits of the mixture or an expert: log-probabilities (..., num_classes)."""
        return torch.log_softmax(logits / self.temperature + self.bias, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return calibrated log-probabilities (B, num_classes) of scans (B, C, H, W) in [0, 1]."""
        return self.calibrate(self.model(x))
