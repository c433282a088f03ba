"""Projected gradient descent (Eq. 3; Madry et al. 2018) in L-inf and L2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from core.attacks.base import (
    LogitsFn,
    Step,
    ascent,
    check,
    evaluate,
    gradient,
    noise_in_ball,
    project,
    to_eight_bit,
)


@dataclass(frozen=True)
class PGD:
    """PGD: x <- project(x + alpha * sign(grad loss)), `steps` times.

    `eps` and `alpha` are in units of [0, 1] pixels. With `targeted`, y is the label to reach
    instead of the label to leave. With `eight_bit` the final perturbation is rounded toward zero
    to whole levels, so that the result survives an 8-bit file.
    """

    eps: float = 0.015
    alpha: float = 0.003
    steps: int = 7
    norm: str = "linf"
    random_start: bool = True
    targeted: bool = False
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, self.norm)
        if self.steps < 1 or not 0 < self.alpha < math.inf:
            raise ValueError(
                f"steps and alpha must be positive and finite, got {self.steps} and {self.alpha}"
            )

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x."""
        x_adv = x
        for item in self._iterate(logits_fn, x, y, seeds):
            if isinstance(item, Tensor):
                x_adv = item
        return x_adv

    def trajectory(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Iterator[Step]:
        """Yield step 0 (the start) to `steps` (the result), each as soon as it is known."""
        for step in self._iterate(logits_fn, x, y, seeds):
            if isinstance(step, Step):
                yield step
            else:
                yield evaluate(logits_fn, step, y, self.steps)

    def _iterate(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None
    ) -> Iterator[Step | Tensor]:
        """Yield a Step at each point where the gradient is taken, then the resulting tensor."""
        x = x.detach()
        x_adv = x
        if self.random_start:
            start = noise_in_ball(x, self.eps, self.norm, range(len(x)) if seeds is None else seeds)
            x_adv = (x + start).clamp(0, 1)
        for index in range(self.steps):
            grad, step = gradient(logits_fn, x_adv, y, index)
            yield step
            move = self.alpha * ascent(-grad if self.targeted else grad, self.norm)
            x_adv = (x + project(x_adv + move - x, self.eps, self.norm)).clamp(0, 1)
        yield to_eight_bit(x, x_adv) if self.eight_bit else x_adv
