"""Expectation over transformation (Athalye et al. 2018): averages a randomised defence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.attacks.base import LogitsFn


def eot(draw: LogitsFn, eot_iter: int) -> LogitsFn:
    """The logarithm of the mean probabilities over `eot_iter` calls of `draw`, each with own noise.

    Its gradient is that of the expected output: what an attacker of a randomised defence follows.
    """
    if eot_iter < 1:
        raise ValueError(f"eot_iter must be at least 1, got {eot_iter}")

    def averaged(x: Tensor) -> Tensor:
        log_probs = torch.stack([draw(x).log_softmax(1) for _ in range(eot_iter)])
        return torch.logsumexp(log_probs, dim=0) - math.log(eot_iter)

    return averaged
