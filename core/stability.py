"""Stability: does a small change of the scan that was received flip the answer?

Consistent prediction with rejection (CPR; Chen et al., ICML 2023): an answer that an attack of
radius d flips is not stable. With r(x) the distance of a scan to the nearest other answer, a clean
scan is not stable if r < d, and an attack of size eps misleads with a stable answer only where
r <= eps - d, if the search misses no flip. It is deterministic: it starts at the scan itself and
draws nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.attacks.base import LogitsFn, margin_gradient

RADII = (0.0075, 0.015)  # L-inf, in units of [0, 1] pixels
STEPS = 5  # on validation scans, 30 smaller steps found no more
LARGEST = 0.1  # a change of this size is seen at a glance
REACH = 2.0  # length of all steps together, in radii
FORGIVEN = 5e-7  # of float32 in (x + eps) - x


class TooSlowError(RuntimeError):
    """The search would take longer than it may."""


@dataclass(frozen=True)
class StabilityConfig:
    """Radius `d` within which no flip may be found, and the search for one.

    The search is given up where its first half, in the largest radius, would take more than
    `seconds` for each scan: `TooSlowError`.
    """

    d: float = 0.0075
    steps: int = STEPS
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.d <= LARGEST:
            raise ValueError(f"d must be above 0 and at most {LARGEST}, got {self.d}")
        if self.steps < 1 or not self.seconds > 0:
            raise ValueError(f"steps and seconds must be positive, got {self}")

    @property
    def radii(self) -> tuple[float, ...]:
        """Radii that are tried, ascending: `d` and `RADII`."""
        return tuple(sorted({self.d, *RADII}))


class Flips(NamedTuple):
    """The nearest flip that was found of each of B scans."""

    distance: Tensor  # (B,) L-inf in units of [0, 1] pixels; inf where none was found
    scans: Tensor  # (B, C, H, W) in [0, 1]; the scan itself where none was found
    radius: Tensor  # (B,) largest radius tried within which none was found; 0: within the smallest


def describe_stability(
    stable: bool | None,
    radius: float | None,
    d: float,
    purifying_turns: bool,
    why_not: str = "this machine is too slow",
) -> str:
    """Describe the stability of an answer in a few words.

    Args:
        stable: None if it was not tried.
        radius: the largest one tried without a flip.
        d: radius that decides.
        purifying_turns: the answer would be another without purifying.
        why_not: why it was not tried.
    """
    if stable is None or radius is None:
        return f"stability not tried: {why_not}"
    if stable:
        return f"stable up to {radius:.4g}"
    return "turned by purifying" if purifying_turns else f"would flip within {d:g}"


@torch.inference_mode(mode=False)
@torch.no_grad()
def find_flips(
    logits_fn: LogitsFn,
    x: Tensor,
    radii: Sequence[float] = RADII,
    steps: int = STEPS,
    seconds: float | None = None,
) -> Flips:
    """Attack scans x (B, C, H, W) in [0, 1] within `radii`; return the nearest flips.

    The largest radius comes first; the others are tried on the scans that it flips. What it does
    not find may exist: the distance is an upper bound.

    Raises:
        TooSlowError: at the pace of the first steps the largest radius would take more than
            `seconds` a scan.
    """
    x = x.detach().clone()  # no tensor of inference mode
    *smaller, largest = sorted(radii)
    distance, scans = _attack(logits_fn, x, (largest,), steps, seconds)
    near = (distance < torch.inf).nonzero()[:, 0]
    if smaller and len(near):
        closer, nearer = _attack(logits_fn, x[near], smaller, steps, None)
        improved = closer < distance[near]
        distance[near[improved]], scans[near[improved]] = closer[improved], nearer[improved]
    within = torch.tensor([0.0, *smaller, largest]).to(x)
    stable = distance[:, None] > within[None] + FORGIVEN
    return Flips(distance, scans, (stable * within).amax(1))


def _attack(
    logits_fn: LogitsFn, x: Tensor, radii: Sequence[float], steps: int, seconds: float | None
) -> tuple[Tensor, Tensor]:
    """Return distance (B,) and scans (B, C, H, W) of the nearest flips: PGD on the margin in L-inf.

    Each step is `REACH` / `steps` radii long; all radii are tried in one batch.
    """
    begun, count = time.perf_counter(), len(x)
    distance, found = torch.full((count,), torch.inf).to(x), x.clone()
    eps = torch.tensor(radii).to(x).repeat_interleave(count).view(-1, 1, 1, 1)
    scans, places = x.repeat(len(radii), 1, 1, 1), torch.arange(count, device=x.device)
    slope, logits = margin_gradient(logits_fn, x)  # all radii start at the same point
    slope, answers = slope.repeat(len(radii), 1, 1, 1), logits.argmax(1).repeat(len(radii))
    now = scans
    for index in range(1, steps + 1):
        moved = now + eps * (REACH / steps) * slope.sign()
        now = (scans + (moved - scans).clamp(-eps, eps)).clamp(0, 1)
        if index < steps:
            slope, logits = margin_gradient(logits_fn, now, answers)
        else:
            logits = logits_fn(now)
        size = (now - scans).abs().flatten(1).amax(1)
        size = torch.minimum(size, eps.flatten())  # float32: (x + eps) - x may exceed eps
        size = torch.where(logits.argmax(1) != answers, size, torch.inf)
        nearest, tried = size.view(-1, count).min(0)
        closer = nearest < distance
        distance = torch.where(closer, nearest, distance)
        candidates = now.view(-1, *x.shape)[tried, places]
        found = torch.where(closer.view(-1, 1, 1, 1), candidates, found)
        if seconds and (time.perf_counter() - begun) * steps > seconds * count * index:
            raise TooSlowError(f"the search takes more than {seconds:g} s a scan")
    return distance, found
