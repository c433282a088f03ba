"""Scanner shift: each simulated hospital has a scanner of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScannerConfig:
    """Largest difference of each kind between two scanners; 0 disables it."""

    gamma: float = 0.0  # exponent between exp(-gamma) and exp(gamma)
    bias: float = 0.0  # slow multiplicative field, between 1 - bias and 1 + bias
    noise: float = 0.0  # standard deviation of Rician noise in [0, 1] levels, up to

    def __post_init__(self) -> None:
        if min(self.gamma, self.bias, self.noise) < 0 or self.bias >= 1:
            raise ValueError(f"gamma, bias and noise must be 0 or more, bias below 1, got {self}")

    @property
    def is_on(self) -> bool:
        """True if any difference is enabled."""
        return max(self.gamma, self.bias, self.noise) > 0


def shift(
    scans: np.ndarray, config: ScannerConfig, seed: int, client: int, names: Sequence[int]
) -> np.ndarray:
    """Return scans (N, H, W) or (N, C, H, W), uint8, as the client's scanner shows them.

    Gamma, bias field and noise level depend on `seed` and `client`; a scan's noise also on its
    number in `names`, so that it is the same in every subset.
    """
    if not config.is_on:
        return scans
    machine = np.random.default_rng([seed, client])
    exponent = np.exp(machine.uniform(-config.gamma, config.gamma))
    field = 1 + config.bias * _draw_field(scans.shape[-2], scans.shape[-1], machine)
    sigma = machine.uniform(0, config.noise)
    shifted = np.empty_like(scans)
    for i, name in enumerate(names):
        x = np.clip((scans[i] / 255.0) ** exponent * field, 0, 1)
        real, imaginary = np.random.default_rng([seed, client, name]).normal(
            0, sigma, (2, *x.shape)
        )
        shifted[i] = np.rint(np.clip(np.hypot(x + real, imaginary), 0, 1) * 255)
    return shifted


def _draw_field(height: int, width: int, machine: np.random.Generator) -> np.ndarray:
    """Draw a quadratic surface (H, W) of largest absolute value 1, like a coil's sensitivity."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([x, y, x * y, x**2 - 1 / 3, y**2 - 1 / 3])
    surface: np.ndarray = np.tensordot(machine.normal(size=len(terms)), terms, axes=1)
    surface /= np.abs(surface).max()
    return surface
