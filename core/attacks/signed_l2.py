"""PGD of pFedDef's evaluation (Kim et al. 2023): signed steps in an L2 ball."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from core.attacks.base import LogitsFn, check, gradient, noise_in_ball, project

CIFAR10_STD = (0.2023, 0.1994, 0.2010)  # of its channels, as FedEM and pFedDef normalise them


@dataclass(frozen=True)
class SignedL2:
    """PGD by the gradient's sign, projected on an L2 ball, both in normalised pixels.

    `eps` and `alpha` are in normalised units: a pixel of [0, 1] divided by its channel's `std`; the
    channels' means cancel out. The start is pFedDef's too: uniform between 0 and eps / sqrt(D) for
    each of D values. For D = 3 x 32 x 32 a ball of 4.5 allows .08 at every value, about .016 of
    [0, 1]; 10 steps of .01 move at most .1 from the start.

    Differs from pFedDef: pixels are clipped to [0, 1], not to the range of the normalised data.
    """

    eps: float = 4.5
    alpha: float = 0.01
    steps: int = 10
    std: tuple[float, ...] = CIFAR10_STD

    def __post_init__(self) -> None:
        check(self.eps, "l2")
        if self.steps < 1 or not 0 < self.alpha < math.inf or not min(self.std) > 0:
            raise ValueError(f"steps, alpha and std must be positive and finite, got {self}")

    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1], within eps of x in normalised units.

        Raises:
            ValueError: `std` does not have one number per channel, or `seeds` one per picture.
        """
        if x.shape[1] != len(self.std):
            raise ValueError(f"std needs one number per channel, got {self.std} for {x.shape[1]}")
        x = x.detach()
        std = x.new_tensor(self.std).view(1, -1, 1, 1)
        half = self.eps / math.sqrt(x[0].numel()) / 2
        start = half + noise_in_ball(x, half, "linf", range(len(x)) if seeds is None else seeds)
        x_adv = (x + start * std).clamp(0, 1)
        for index in range(self.steps):
            grad, _ = gradient(logits_fn, x_adv, y, index)
            # normalising scales a gradient by std > 0: its sign is the same
            delta = (x_adv - x) / std + self.alpha * grad.sign()
            x_adv = (x + project(delta, self.eps, "l2") * std).clamp(0, 1)
        return x_adv
