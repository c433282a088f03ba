"""Out-of-distribution detection: pictures that are not brain MRI get 'cannot judge'.

A linear head on the tokens of the masked autoencoder, which was trained on brain MRI, separates
training scans from drawn pictures (outlier exposure, Hendrycks et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOG_ODDS_UNIT = 1000.0  # keeps the stored numbers below 1, as secure aggregation needs


class Novelty(nn.Module):
    """Linear out-of-distribution head: log-odds that a picture is not brain MRI, and a limit.

    Untrained it gives 0 to every picture, which is not above its limit.

    Args:
        dim: width of the encoder's tokens.
    """

    weight: Tensor
    offset: Tensor
    cut: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(2 * dim))
        self.register_buffer("offset", torch.zeros(1))
        self.register_buffer("cut", torch.zeros(1))

    @property
    def limit(self) -> Tensor:
        """Log-odds () above which the system cannot judge."""
        return self.cut[0] * LOG_ODDS_UNIT

    @staticmethod
    def features(tokens: Tensor) -> Tensor:
        """Return mean and standard deviation (B, 2 D) over the tokens (B, L, D) of whole scans."""
        return torch.cat([tokens.mean(1), tokens.std(1)], dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the out-of-distribution score (B,) of encoder tokens (B, L, D)."""
        return self.score(self.features(tokens))

    def score(self, features: Tensor) -> Tensor:
        """Return the out-of-distribution score (B,) of `features` (B, 2 D)."""
        novelty: Tensor = (features @ self.weight + self.offset) * LOG_ODDS_UNIT
        return novelty
