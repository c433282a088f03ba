"""Attack on an answer that is refused where it is not stable (CHCMOA; Chen et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks import base
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
        base.check(self.eps, "linf")
        if self.steps < 1 or self.inner_steps < 1 or not self.d > 0:
            raise ValueError(f"d and steps must be positive, got {self}")

    def __call__(
        self, logits_fn: base.LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x."""
        now = x = x.detach()
        if self.random_start:
            own = range(len(x)) if seeds is None else seeds
            now = (x + base.noise_in_ball(x, self.eps, "linf", own)).clamp(0, 1)
        inner = PGD(
            self.d, 2 * self.d / self.inner_steps, self.inner_steps, random_start=False,
            targeted=True,
        )  # fmt: skip
        best, highest = now, torch.full((len(x),), -torch.inf).to(x)
        for index in range(self.steps + 1):
            twin = inner(logits_fn, now, y)
            slope, logits = base.margin_gradient(logits_fn, now, y)
            twins_slope, twins_logits = base.margin_gradient(logits_fn, twin, y)
            goal = torch.minimum(base.margin(logits, y), base.margin(twins_logits, y))
            better = goal > highest
            best = torch.where(better.view(-1, 1, 1, 1), now, best)
            highest = torch.maximum(highest, goal)
            if index < self.steps:
                step = 2 * self.eps * (1 - index / self.steps) ** 2
                move = step * (base.ascent(slope, "l2") + base.ascent(twins_slope, "l2")).sign()
                now = (x + base.project(now + move - x, self.eps, "linf")).clamp(0, 1)
        return base.to_eight_bit(x, best) if self.eight_bit else best
