"""Mathematics of the diffusion process (Eq. 13-17): schedules and steps, no network.

Here x is scaled to [-1, 1] by `to_model`, as the linear schedule expects; scans are in [0, 1]
everywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Diffusion(nn.Module):
    """Linear schedule: betas from 1e-4 to 2e-2 over T = 1000 steps; t counts from 0, not 1."""

    betas: Tensor
    alpha_bar: Tensor

    def __init__(
        self, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2
    ) -> None:
        super().__init__()
        if num_timesteps < 1 or not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"bad schedule: {num_timesteps} steps of {beta_start} to {beta_end}")
        self.num_timesteps = num_timesteps
        betas = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
        self.register_buffer("betas", betas.float(), persistent=False)
        self.register_buffer("alpha_bar", torch.cumprod(1 - betas, 0).float(), persistent=False)

    def sigma(self, t: int) -> float:
        """Return the noise-to-signal ratio at step t: standard deviation in [0, 1] pixels."""
        a = float(self.alpha_bar[self.check(t)])
        return 0.5 * math.sqrt((1 - a) / a)

    def check(self, t: int) -> int:
        """Return t; raise ValueError outside [0, num_timesteps - 1]."""
        if not 0 <= t < self.num_timesteps:
            raise ValueError(f"t must be in [0, {self.num_timesteps - 1}], got {t}")
        return t

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Eq. 17), t (B,)."""
        a = self._at(t, x_0)
        return a.sqrt() * x_0 + (1 - a).sqrt() * noise

    def predict_x0(self, x_t: Tensor, t: Tensor, noise_pred: Tensor) -> Tensor:
        """Predict the clean scan from `noise_pred`: Eq. 17 solved for x_0."""
        a = self._at(t, x_t)
        return (x_t - (1 - a).sqrt() * noise_pred) / a.sqrt()

    def implied_noise(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """Return the noise between x_0 and x_t: Eq. 17 solved for the noise."""
        a = self._at(t, x_t)
        return (x_t - a.sqrt() * x_0) / (1 - a).sqrt()

    def p_sample(self, x_t: Tensor, t: Tensor, noise_pred: Tensor, noise: Tensor) -> Tensor:
        """Take one ancestral step to t - 1 (Eq. 14-15), variance that of q(x_{t-1} | x_t, x_0)."""
        beta = self._broadcast(self.betas[t], x_t)
        a, before = self._at(t, x_t), self._at(t - 1, x_t)
        mean = (x_t - beta / (1 - a).sqrt() * noise_pred) / (1 - beta).sqrt()
        return mean + (beta * (1 - before) / (1 - a)).sqrt() * noise

    def ddim_step(self, x_t: Tensor, t: Tensor, t_next: Tensor, noise_pred: Tensor) -> Tensor:
        """Take a DDIM step from t to t_next < t (Song et al. 2021); t_next -1 is the clean scan."""
        a_next = self._at(t_next, x_t)
        x_0 = self.predict_x0(x_t, t, noise_pred)
        return a_next.sqrt() * x_0 + (1 - a_next).sqrt() * noise_pred

    def _at(self, t: Tensor, x: Tensor) -> Tensor:
        """Return alpha_bar_t shaped for x; 1 where t < 0."""
        a = torch.where(t < 0, torch.ones_like(self.alpha_bar[0]), self.alpha_bar[t.clamp_min(0)])
        return self._broadcast(a, x)

    @staticmethod
    def _broadcast(values: Tensor, x: Tensor) -> Tensor:
        return values.to(x).view(-1, *[1] * (x.ndim - 1))


def to_model(x: Tensor) -> Tensor:
    """Scale pixels from [0, 1] to the diffusion's [-1, 1]."""
    return x * 2 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Scale [-1, 1] back to pixels in [0, 1], without clipping."""
    return (x + 1) / 2


def seeded_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Draw standard normal noise (len(seeds), *shape); scan i's depends only on seeds[i]."""
    return torch.stack(
        [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s))) for s in seeds]
    )
