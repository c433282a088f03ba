"""Expectation over transformation, EOT (Athalye et al. 2018), for randomised defences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.attacks.base import LogitsFn


def eot(draw: LogitsFn, eot_iter: int) -> LogitsFn:
    """Return a function: log of the mean probabilities over `eot_iter` calls of `draw`.

    Each call draws its own noise; the gradient estimates that of the expected output.
    """
    if eot_iter < 1:
        raise ValueError(f"eot_iter must be at least 1, got {eot_iter}")

    def average_draws(x: Tensor) -> Tensor:
        log_probs = torch.stack([draw(x).log_softmax(1) for _ in range(eot_iter)])
        return torch.logsumexp(log_probs, dim=0) - math.log(eot_iter)

    return average_draws
