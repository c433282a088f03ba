"""Attack on an answer that is refused where it is not stable (CHCMOA; Chen et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks.base import LogitsFn, ascent, check, margin, noise_in_ball, project, to_eight_bit
from core.attacks.pgd import PGD


@dataclass(frozen=True)
class ConsistentPGD:
    """PGD towards a wrong answer that no change within `d` turns right again.

    Each step follows two gradients of the margin, each of unit length: at the scan, and at its
    twin, which an inner attack within `d` brings nearest to the true answer. The inner attack's
    steps are frozen: the twin moves with the scan. The result is the point of the highest margin of
    the two together, the lower one counting.
    """

    eps: float = 0.015
    d: float = 0.0075
    steps: int = 50
    inner_steps: int = 5
    random_start: bool = True
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.steps < 1 or self.inner_steps < 1 or not self.d > 0:
            raise ValueError(f"d and steps must be positive, got {self}")

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x."""
        x = x.detach()
        now = x
        if self.random_start:
            start = noise_in_ball(x, self.eps, "linf", range(len(x)) if seeds is None else seeds)
            now = (x + start).clamp(0, 1)
        inner = PGD(
            self.d, 2 * self.d / self.inner_steps, self.inner_steps, random_start=False,
            targeted=True,
        )  # fmt: skip
        best, highest = now, torch.full((len(x),), -torch.inf).to(x)
        for index in range(self.steps + 1):
            twin = inner(logits_fn, now, y)
            lead, slope = _climb(logits_fn, now, y)
            twins_lead, twins_slope = _climb(logits_fn, twin, y)
            goal = torch.minimum(lead, twins_lead)
            better = goal > highest
            best = torch.where(better.view(-1, 1, 1, 1), now, best)
            highest = torch.maximum(highest, goal)
            if index < self.steps:
                step = 2 * self.eps * (1 - index / self.steps) ** 2
                move = step * (ascent(slope, "l2") + ascent(twins_slope, "l2")).sign()
                now = (x + project(now + move - x, self.eps, "linf")).clamp(0, 1)
        return to_eight_bit(x, best) if self.eight_bit else best


def _climb(logits_fn: LogitsFn, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margin (B,) of the best wrong class, and its gradient by the pixels."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        lead = margin(logits_fn(x), y)
        (slope,) = torch.autograd.grad(lead.sum(), x)
    return lead.detach(), slope
