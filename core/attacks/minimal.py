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

    eps: float  # that was tried
    low: float  # the largest eps below `high` that was tried in vain
    high: float | None  # the smallest eps that turned the output; None where none did
    x_adv: Tensor | None  # (1, C, H, W) in [0, 1], the scan that `high` made


@dataclass(frozen=True)
class MinimalPGD:
    """Halves the interval between an eps that fails and one that succeeds, to within `tolerance`.

    The answer is an upper bound: a cleverer attack may need less. PGD may also fail at an eps
    although it succeeds at a smaller one, so a failure only ever raises `low`, and a success is
    never taken back. Every attack starts at the scan itself: the same scan, the same answer.
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
        """The smallest eps found that makes scan x (1, C, H, W) leave label y (1,), or None."""
        high = None
        for probe in self.search(logits_fn, x, y):
            high = probe.high
        return high

    def search(self, logits_fn: LogitsFn, x: Tensor, y: Tensor) -> Iterator[BisectionStep]:
        """Yields after each attack, so that a caller can show it, or stop there.

        First eps 0 (is the output y at all?), then `largest`, then the middles.

        Raises:
            ValueError: x is not one scan.
        """
        if len(x) != 1:
            raise ValueError(f"expected one scan, got {len(x)}")
        low, high, best = 0.0, None, None
        eps = 0.0
        while True:
            x_adv = self._turn(logits_fn, x, y, eps)
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

    def _turn(self, logits_fn: LogitsFn, x: Tensor, y: Tensor, eps: float) -> Tensor | None:
        """Return the first scan on PGD's trajectory whose output is not y."""
        if eps == 0:
            with torch.no_grad():
                return x if bool(logits_fn(x).argmax(1) != y) else None
        # 2.5 times the radius in all: Madry et al. (2018)
        attack = PGD(eps, 2.5 * eps / self.steps, self.steps, self.norm, random_start=False)
        for step in attack.trajectory(logits_fn, x, y):
            if bool(step.probabilities.argmax(1) != y):
                return step.x_adv
        return None
