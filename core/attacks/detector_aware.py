"""Detector-aware attack on the classifier's loss and the detector's score together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks.base import ascent, check, project, to_eight_bit

LookFn = Callable[
    [Tensor], tuple[Tensor, Tensor]
]  # margin of the wrong class (B,), score above tau (B,)


@dataclass(frozen=True)
class DetectorAwarePGD:
    """PGD on both gradients, each of unit length, with momentum and shrinking steps.

    No sign steps: a step of one size in every pixel is noise, and raises the score of a noise
    detector even along its descending gradient. Gradients are taken at the scan quantized to 8
    bits (straight-through backward), which is what the detector gets. The result is the best
    misclassified and unflagged point of the trajectory, or the last point if there is none.
    """

    eps: float = 0.015
    steps: int = 50
    share: float = 1.0  # weight of the score's gradient against the loss gradient's
    first: float = 0.5  # root mean square of the first step, over eps
    momentum: float = 0.75
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.steps < 1 or self.share < 0 or self.first <= 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"steps, share, first or momentum out of range in {self}")

    def __call__(self, look: LookFn, x: Tensor, start: Tensor) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x, from a `start` within both."""
        x, now = x.detach(), start.detach()
        length = x[0].numel() ** 0.5 * self.eps * self.first
        pace, found = torch.zeros_like(x), now
        highest = torch.zeros(len(x), device=x.device)
        for index in range(self.steps + 1):
            with torch.enable_grad():
                z = now.detach().requires_grad_()
                seen = z + (to_eight_bit(x, z) - z).detach()
                lead, excess = look(seen)
                (up,) = torch.autograd.grad(lead.sum(), z, retain_graph=True)
                (away,) = torch.autograd.grad(excess.sum(), z)
            goal = torch.minimum(lead, -excess).detach()
            better = (goal > highest).view(-1, 1, 1, 1)
            found = torch.where(better, now, found)
            highest = torch.maximum(highest, goal)
            if index == self.steps:
                break
            pace = self.momentum * pace + ascent(up, "l2") - self.share * ascent(away, "l2")
            step = length * (1 - index / self.steps) * ascent(pace, "l2")
            now = (x + project(now + step - x, self.eps, "linf")).clamp(0, 1)
        x_adv = torch.where((highest > 0).view(-1, 1, 1, 1), found, now)
        return to_eight_bit(x, x_adv) if self.eight_bit else x_adv
