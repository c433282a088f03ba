"""Detector-aware attack: follows the gradients of the classifier's loss and of the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks.base import ascent, check, project, to_eight_bit

LookFn = Callable[[Tensor], tuple[Tensor, Tensor]]  # how far misread (B,), how far above tau (B,)


@dataclass(frozen=True)
class DetectorAwarePGD:
    """Both gradients are brought to unit length and followed, with momentum and shrinking steps.

    No signs: a step of one size in every pixel is grain itself, and raises the score of a detector
    of grain even where its gradient leads down. Gradients are taken at the scan rounded to 8 bits
    (backward the identity), because that is what will be looked at. Of the points on the way the
    one that is furthest misread and not flagged counts; where there is none, the last.
    """

    eps: float = 0.015
    steps: int = 50
    share: float = 1.0  # of hiding, against misleading
    first: float = 0.5  # root mean square of the first step, over eps
    momentum: float = 0.75
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.steps < 1 or self.share < 0 or self.first <= 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"steps, share, first or momentum out of range in {self}")

    def __call__(self, look: LookFn, x: Tensor, start: Tensor) -> Tensor:
        """x_adv (B, C, H, W) in [0, 1] and within eps of x, from `start`, which is so too."""
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
