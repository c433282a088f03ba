"""Counterfactual: a large, smooth change of a scan that brings about another answer.

The gradient of an adversarially trained classifier draws what the classifier believes (Tsipras et
al. 2019; Engstrom et al. 2019); that of a plain one is noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks.base import LogitsFn, Step, check, gradient

HEAD_LEVEL = 0.04  # pixels below this, smoothed, are background: nothing is drawn there


@dataclass(frozen=True)
class Counterfactual:
    """Ascent on the wanted class along the smoothed gradient, within eps in each pixel.

    `sigma` is that of the Gaussian, in pixels, which forbids fine patterns. It ends when the wanted
    class has the probability `enough`, or after `steps`.
    """

    eps: float = 0.2
    steps: int = 40
    sigma: float = 3.0
    enough: float = 0.95

    def __post_init__(self) -> None:
        check(self.eps, "linf")
        if self.steps < 1 or not self.sigma > 0 or not 0 < self.enough <= 1:
            raise ValueError(f"steps, sigma or enough out of range in {self}")

    def search(self, logits_fn: LogitsFn, x: Tensor, wanted: Tensor) -> Iterator[Step]:
        """Yield the scan after each step, the given one first; x (B, C, H, W), wanted (B,)."""
        x = now = x.detach()
        inside = (smooth(x, self.sigma) > HEAD_LEVEL).to(x)
        for index in range(self.steps + 1):
            slope, step = gradient(logits_fn, now, wanted, index)
            yield step
            reached = step.probabilities.gather(1, wanted[:, None])[:, 0] >= self.enough
            if index == self.steps or bool(reached.all()):
                return
            way = smooth(-slope, self.sigma) * inside
            way = way / way.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
            way = way * (~reached).view(-1, 1, 1, 1)
            moved = now + 3 * self.eps / self.steps * way
            now = (x + (moved - x).clamp(-self.eps, self.eps)).clamp(0, 1)


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Return scans (B, C, H, W) smoothed with a Gaussian of `sigma` pixels."""
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, reach))
    flat = F.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return flat.view_as(x)
