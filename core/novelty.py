"""Is this a brain MRI slice at all? Where it is not, the system cannot judge and says so.

The masked autoencoder has learned what brain MRI looks like; a linear head on its encoder's tokens
tells training scans from drawn pictures that are none (outlier exposure, Hendrycks et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EVERYTHING = 65504.0  # the limit of an untrained head, the most that half precision keeps


class Novelty(nn.Module):
    """Log-odds that a picture is none of what the system learned from, and the limit for judging.

    Args:
        dim: width of the encoder's tokens.
    """

    centre: Tensor
    spread: Tensor
    weight: Tensor
    offset: Tensor
    limit: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(2 * dim))
        self.register_buffer("spread", torch.ones(2 * dim))
        self.register_buffer("weight", torch.zeros(2 * dim))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("limit", torch.full((), EVERYTHING))

    @staticmethod
    def features(tokens: Tensor) -> Tensor:
        """Mean and standard deviation (B, 2 D) over the tokens (B, L, D) of whole scans."""
        return torch.cat([tokens.mean(1), tokens.std(1)], dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Novelty (B,) from encoder tokens (B, L, D); above `limit` nothing is judged."""
        return self.score(self.features(tokens))

    def score(self, features: Tensor) -> Tensor:
        """The same (B,) from `features` (B, 2 D)."""
        novelty: Tensor = (features - self.centre) / self.spread @ self.weight + self.offset
        return novelty
