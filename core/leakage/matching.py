"""Gradient matching: a search for scans whose gradient is the one that was sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from core.mae import PIXEL_MEAN, PIXEL_SD

GradientFn = Callable[[Tensor], Sequence[Tensor]]  # scans (B, C, H, W) -> gradients, differentiable
DecodeFn = Callable[[Tensor], Tensor]  # what is searched -> scans (B, C, H, W) in [0, 1]
DISTANCES = ("cosine", "euclidean")


class Rebuilt(NamedTuple):
    """Scans that were found, and how far their gradient is from the one that was sent."""

    scans: Tensor  # (B, C, H, W) in [0, 1]
    distance: float


@dataclass(frozen=True)
class GradientMatching:
    """Search for scans by their gradient.

    With the distance 'cosine' it is Inverting Gradients (Geiping et al. 2020): 1 - cosine and
    `smooth` times the total variation, signed steps of Adam, whose size falls tenfold three times.
    With 'euclidean' it is Deep Leakage from Gradients (Zhu et al. 2019): the squared distance,
    `steps` steps of L-BFGS.
    """

    steps: int = 2000
    restarts: int = 1
    distance: str = "cosine"
    size: float = 0.1
    smooth: float = 1e-3

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"distance must be one of {DISTANCES}, got {self.distance!r}")
        if min(self.steps, self.restarts) < 1 or not self.size > 0 or self.smooth < 0:
            raise ValueError(f"steps, restarts and size must be positive, got {self}")

    def __call__(
        self,
        gradient_fn: GradientFn,
        sent: Sequence[Tensor],
        shape: Sequence[int],
        seed: int = 0,
        decode: DecodeFn | None = None,
    ) -> Rebuilt:
        """Return the scans whose gradient is nearest to `sent`, of all restarts.

        Args:
            gradient_fn: gradients of scans, which can be differentiated again.
            sent: the gradients that were seen.
            shape: of what is searched: the scans' (B, C, H, W) without `decode`.
            seed: of the random starts.
            decode: turns what is searched into scans: a prior.
        """
        to_scans = decode or _clamp
        found: Rebuilt | None = None
        for restart in range(self.restarts):
            generator = torch.Generator().manual_seed(seed * self.restarts + restart)
            start = PIXEL_MEAN + PIXEL_SD * torch.randn(tuple(shape), generator=generator)
            scans = to_scans(self._search(gradient_fn, sent, start.to(sent[0]), to_scans)).detach()
            distance = float(self._measure(gradient_fn(scans), sent).detach())
            if found is None or distance < found.distance or math.isnan(found.distance):
                found = Rebuilt(scans, distance)
        assert found is not None
        return found

    def _search(
        self, gradient_fn: GradientFn, sent: Sequence[Tensor], start: Tensor, to_scans: DecodeFn
    ) -> Tensor:
        point = start.clone().requires_grad_()

        def measure() -> Tensor:
            scans = to_scans(point)
            distance = self._measure(gradient_fn(scans), sent)
            if self.distance == "cosine" and self.smooth:
                distance = distance + self.smooth * measure_variation(scans)
            return distance

        if self.distance == "euclidean":
            lbfgs = torch.optim.LBFGS([point], max_iter=self.steps, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                lbfgs.zero_grad()
                value = measure()
                (point.grad,) = torch.autograd.grad(value, [point])
                return value.detach()

            lbfgs.step(closure)
            return point.detach()
        adam = torch.optim.Adam([point], self.size)
        falls = [round(self.steps * part) for part in (3 / 8, 5 / 8, 7 / 8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(adam, falls, 0.1)
        for _ in range(self.steps):
            (slope,) = torch.autograd.grad(measure(), [point])
            point.grad = slope.sign()
            adam.step()
            schedule.step()
            if to_scans is _clamp:
                with torch.no_grad():
                    point.clamp_(0, 1)
        return point.detach()

    def _measure(self, own: Sequence[Tensor], sent: Sequence[Tensor]) -> Tensor:
        a, b = (torch.cat([t.flatten() for t in side]) for side in (own, sent))
        if self.distance == "euclidean":
            return (a - b).square().sum()
        return 1 - F.cosine_similarity(a, b, dim=0)


def measure_variation(scans: Tensor) -> Tensor:
    """Return the mean total variation () of scans (B, C, H, W): differences of neighbours."""
    return scans.diff(dim=2).abs().mean() + scans.diff(dim=3).abs().mean()


def _clamp(point: Tensor) -> Tensor:
    """Clamp to [0, 1] forwards; backwards nothing is clamped, so that no pixel is lost."""
    return point + (point.clamp(0, 1) - point).detach()
