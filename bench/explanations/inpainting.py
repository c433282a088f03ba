"""Removal of a region by an operator that no training uses: harmonic inpainting with noise.

Inside the region the scan becomes the solution of Laplace's equation with the region's rim as
boundary, plus noise as strong as that around it. What lies outside stays bit for bit.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.components.lesions import RING, TISSUE_LEVEL, widen
from core.seeds import derive_seed

STREAM = "inpainting"
TOLERANCE, MAX_STEPS = 1e-5, 4000  # of the conjugate gradients
MAD_TO_SD = 1.4826  # of a normal distribution
RESIDUAL_SD = (8 / 9) ** 0.5  # of white noise of sd 1 minus its mean over 3 x 3
MIN_TISSUE_SHARE = 0.9  # of a control region
SEARCH_STEP, MAX_DISTANCE = 8, 120  # pixels: grid and reach of the search for a control region


def inpaint(x: Tensor, region: Tensor, seed: int) -> Tensor:
    """Remove the region (H, W) bool from a scan (1, H, W) in [0, 1] on the CPU.

    Raises:
        ValueError: nothing lies outside the region.
    """
    if bool(region.all()):
        raise ValueError("the region fills the scan: it has no rim to be inpainted from")
    generator = torch.Generator().manual_seed(derive_seed(seed, STREAM))
    noise = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    filled = solve_laplace(x[0].double(), region) + noise * measure_noise(x, region)
    out = x.clone()
    out[0][region] = filled[region].clamp(0, 1).to(x)
    return out


def solve_laplace(values: Tensor, region: Tensor) -> Tensor:
    """Replace values (H, W) in the region by the mean of their neighbours, everywhere at once.

    Beyond the picture's edge there are no neighbours. Solved by conjugate gradients.
    """
    rows, columns = (_bound(region.any(side)) for side in (1, 0))
    out = values.clone()
    out[rows, columns] = _solve(values[rows, columns], region[rows, columns])
    return out


def _bound(used: Tensor) -> slice:
    """Return the positions (N,) from the first to the last used one, with one more on each side."""
    places = used.nonzero()[:, 0].tolist() or [0]
    return slice(max(places[0] - 1, 0), places[-1] + 2)


def _solve(values: Tensor, region: Tensor) -> Tensor:
    """Solve in a box whose margin lies outside the region, but for the picture's own edge."""
    inside = region.to(values)
    degree = _sum_neighbours(torch.ones_like(values)) * inside
    target = _sum_neighbours(values * (1 - inside)) * inside
    u = values[~region].mean() * inside
    residual = target - degree * u + _sum_neighbours(u) * inside
    direction, power = residual, residual.square().sum()
    goal = TOLERANCE**2 * target.square().sum().clamp_min(1e-6)
    for _ in range(MAX_STEPS):
        if power <= goal:
            break
        moved = degree * direction - _sum_neighbours(direction) * inside
        share = power / (direction * moved).sum()
        u, residual = u + share * direction, residual - share * moved
        last, power = power, residual.square().sum()
        direction = residual + power / last * direction
    return torch.where(region, u, values)


def _sum_neighbours(values: Tensor) -> Tensor:
    wide = F.pad(values, (1, 1, 1, 1))
    return wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]


def measure_noise(x: Tensor, region: Tensor) -> float:
    """Measure the noise's sd around the region: median deviation of pixels from their 3 x 3 mean.

    0 where nothing lies around it.
    """
    ring = widen(region, RING) & ~widen(region, 1)
    residual = (x - F.avg_pool2d(x[None], 3, stride=1, padding=1)[0])[0][ring]
    return MAD_TO_SD * float(residual.abs().median()) / RESIDUAL_SD if len(residual) else 0.0


def find_control_region(x: Tensor, region: Tensor, taken: Tensor) -> Tensor | None:
    """Return the region moved to the nearest tissue that touches nothing taken, or None."""
    tissue = F.avg_pool2d(x[None], 9, stride=1, padding=4)[0, 0] > TISSUE_LEVEL
    rows, columns = region.nonzero().unbind(1)
    h, w = region.shape
    steps = range(-MAX_DISTANCE, MAX_DISTANCE + 1, SEARCH_STEP)
    for dy, dx in sorted(itertools.product(steps, steps), key=lambda d: d[0] ** 2 + d[1] ** 2):
        down, right = rows + dy, columns + dx
        if (
            min(down.min(), right.min()) < 0
            or down.max() >= h
            or right.max() >= w
            or taken[down, right].any()
        ):
            continue
        if float(tissue[down, right].float().mean()) >= MIN_TISSUE_SHARE:
            moved = torch.zeros_like(region)
            moved[down, right] = True
            return moved
    return None
