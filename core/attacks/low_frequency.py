"""PGD on a coarse grid, upsampled: smooth perturbations that survive filters and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks.base import LogitsFn, check, gradient, noise_in_ball, to_eight_bit


@dataclass(frozen=True)
class LowFrequency:
    """PGD by sign on `grid` x `grid` values in [-eps, eps], upsampled bilinearly to the scan.

    Bilinear weights sum to one, so the upsampled perturbation stays in the L-inf ball. The steps
    shrink evenly from half of eps to none; the point of the highest loss is kept.
    """

    eps: float = 0.015
    grid: int = 28
    steps: int = 50
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.grid < 1 or self.steps < 1:
            raise ValueError(f"grid and steps must be at least 1, got {self}")

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x; one seed per scan."""
        x = x.detach()
        own = range(len(x)) if seeds is None else seeds
        small = x.new_zeros(*x.shape[:2], self.grid, self.grid)
        coarse = noise_in_ball(small, self.eps, "linf", own)
        best = x
        highest = torch.full((len(x),), -torch.inf, device=x.device)
        for index in range(self.steps + 1):
            x_adv = (x + self._upsample(coarse, x)).clamp(0, 1)
            grad, step = gradient(logits_fn, x_adv, y, index)
            better = step.loss > highest
            best = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
            highest = torch.where(better, step.loss, highest)
            with (
                torch.enable_grad()
            ):  # upsampling is linear: its transpose maps the gradient to the grid
                variable = coarse.detach().requires_grad_()
                (back,) = torch.autograd.grad(self._upsample(variable, x), variable, grad)
            size = self.eps / 2 * (1 - index / (self.steps + 1))
            coarse = (coarse + size * back.sign()).clamp(-self.eps, self.eps)
        return to_eight_bit(x, best) if self.eight_bit else best

    def _upsample(self, coarse: Tensor, x: Tensor) -> Tensor:
        return F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
