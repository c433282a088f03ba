"""Smallest eps that changes one scan's output, by bisection with PGD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks.base import LogitsFn, check
from core.attacks.pgd import PGD


@dataclass(frozen=True)
class BisectionStep:
    """State of the bisection after one attack: the smallest eps lies in (low, high]."""

    eps: float  # of this attack
    low: float  # the largest failed eps below `high`
    high: float | None  # the smallest successful eps; None if there is none
    x_adv: Tensor | None  # (1, C, H, W) in [0, 1], adversarial example of size `high`


@dataclass(frozen=True)
class MinimalPGD:
    """Bisection between an eps at which PGD fails and one at which it succeeds, to `tolerance`.

    The result is an upper bound: a stronger attack may need less. PGD may fail at an eps and
    succeed at a smaller one, so a failure only raises `low`. Every attack starts at the scan
    itself, so the result is deterministic.
    `largest` and `tolerance` are in the units of `norm`.
    """

    largest: float = 0.06
    tolerance: float = 1 / 255 / 4
    steps: int = 7
    norm: str = "linf"

    def __post_init__(self) -> None:
        check(self.largest, self.norm)
        if not self.tolerance > 0 or self.steps < 1:
            raise ValueError(f"tolerance and steps must be positive, got {self}")

    def __call__(self, logits_fn: LogitsFn, x: Tensor, y: Tensor) -> float | None:
        """Return the smallest eps found at which x (1, C, H, W) leaves label y (1,), or None."""
        high = None
        for probe in self.search(logits_fn, x, y):
            high = probe.high
        return high

    def search(self, logits_fn: LogitsFn, x: Tensor, y: Tensor) -> Iterator[BisectionStep]:
        """Yield after each attack, so that a caller can show progress or stop.

        Order of eps: 0 (a scan that is not classified as y), `largest`, then bisection.

        Raises:
            ValueError: x is not one scan.
        """
        if len(x) != 1:
            raise ValueError(f"expected one scan, got {len(x)}")
        low, high, best = 0.0, None, None
        eps = 0.0
        while True:
            x_adv = self._attack_at(logits_fn, x, y, eps)
            if x_adv is not None:
                high, best = eps, x_adv
            else:
                low = eps
            yield BisectionStep(eps, low, high, best)
            if high is None and eps < self.largest:
                eps = self.largest
            elif high is None or high - low <= self.tolerance:
                return
            else:
                eps = (low + high) / 2

    def _attack_at(self, logits_fn: LogitsFn, x: Tensor, y: Tensor, eps: float) -> Tensor | None:
        """Return the first scan on PGD's trajectory whose output is not y."""
        if eps == 0:
            with torch.no_grad():
                return x if bool(logits_fn(x).argmax(1) != y) else None
        # step size of Madry et al. (2018): 2.5 eps / steps
        attack = PGD(eps, 2.5 * eps / self.steps, self.steps, self.norm, random_start=False)
        for step in attack.trajectory(logits_fn, x, y):
            if bool(step.probabilities.argmax(1) != y):
                return step.x_adv
        return None
