"""Square attack (Andriushchenko et al. 2020): a black-box attack with random squares, in L-inf."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.attacks.base import STREAM, LogitsFn, check, margin, to_eight_bit
from core.seeds import derive_seed

# after so many of 10,000 queries the squares' area halves (section 4.1)
HALVING_QUERIES = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Square attack: vertical stripes, then squares of +-eps, kept where the margin rises.

    `share` is the area of the first squares. A misclassified scan stops, unless `until_wrong` is
    False: one query of a randomised defence is not a success yet.
    """

    eps: float = 0.015
    queries: int = 1000
    share: float = 0.8
    until_wrong: bool = True
    eight_bit: bool = False

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.queries < 1 or not 0 < self.share <= 1:
            raise ValueError(f"queries or share out of range in {self}")

    @torch.no_grad()
    def __call__(
        self, logits_fn: LogitsFn, x: Tensor, y: Tensor, seeds: Sequence[int] | None = None
    ) -> Tensor:
        """Return x_adv (B, C, H, W) in [0, 1] and within eps of x; one seed per scan."""
        x = x.detach()
        own = range(len(x)) if seeds is None else seeds
        draws = [torch.Generator().manual_seed(derive_seed(seed, STREAM)) for seed in own]
        channels, height, width = x.shape[1:]
        stripes = torch.stack([_draw_signs((channels, 1, width), g) for g in draws]).to(x)
        best = (x + self.eps * stripes).clamp(0, 1)
        highest = margin(logits_fn(best), y)
        for query in range(1, self.queries):
            if self.until_wrong and bool((highest > 0).all()):
                break
            side = self._compute_side(query, height, width)
            moved = best.clone()
            for i, g in enumerate(draws):
                top = int(torch.randint(height - side + 1, (1,), generator=g))
                left = int(torch.randint(width - side + 1, (1,), generator=g))
                window = (i, slice(None), slice(top, top + side), slice(left, left + side))
                change = self.eps * _draw_signs((channels, 1, 1), g).to(x)
                moved[window] = (x[window] + change).clamp(0, 1)
            now = margin(logits_fn(moved), y)
            better = now > highest
            if self.until_wrong:
                better &= highest <= 0
            best = torch.where(better.view(-1, 1, 1, 1), moved, best)
            highest = torch.where(better, now, highest)
        return to_eight_bit(x, best) if self.eight_bit else best

    def _compute_side(self, query: int, height: int, width: int) -> int:
        """Compute the side of a query's squares in pixels."""
        passed = sum(query * 10_000 / self.queries > limit for limit in HALVING_QUERIES)
        side = round(math.sqrt(self.share / 2**passed * height * width))
        return min(max(side, 1), min(height, width) - 1)


def _draw_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator) * 2.0 - 1
