"""Diffusion purification (section III-B2, III-C): noise a scan up to t_star, then denoise it.

The policy says how deep, and whether the classifier reads the purified scan:

- `picture`: every scan is purified to one depth, to be looked at; the classifier reads the scan.
- `paper`: flagged scans are purified, deeper the higher their score, and read purified.
- `floor`: every scan is purified a little and flagged ones more, and read purified, so that an
  attack that was not detected is purified too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.diffusion import Diffusion, seeded_noise, to_model, to_pixels
from core.seeds import derive_seed

POLICIES = ("picture", "paper", "floor")  # the first by default
SAMPLERS = ("one-step", "ddim", "ancestral")
STEP_STREAM = "steps"  # noise stream of ancestral steps, apart from a scan's first noise


@dataclass(frozen=True)
class PurifierConfig:
    """Depth and sampler of the purification.

    `t_picture` is that of policy `picture`. With the others flagged scans get t_min at the
    threshold, rising to t_max, and scans that are not flagged 0 (`paper`) or `t_floor` (`floor`).
    `noises` independent draws are denoised in one batch and averaged.
    """

    policy: str = POLICIES[0]
    t_picture: int = 35
    t_floor: int = 20
    t_min: int = 50
    t_max: int = 100
    sampler: str = "one-step"
    steps: int = 4
    noises: int = 1

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {self.policy!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        if not 0 <= self.t_floor <= self.t_min <= self.t_max <= 999:
            raise ValueError(f"need 0 <= t_floor <= t_min <= t_max <= 999, got {self}")
        if not 0 <= self.t_picture <= 999:
            raise ValueError(f"t_picture must be in [0, 999], got {self.t_picture}")
        if self.steps < 1 or self.noises < 1:
            raise ValueError(
                f"steps and noises must be at least 1, got {self.steps}, {self.noises}"
            )


class Purifier(nn.Module):
    """Differentiable map x -> x_pur; all randomness comes from one seed per scan."""

    def __init__(self, noise_pred: nn.Module, diffusion: Diffusion, config: PurifierConfig) -> None:
        super().__init__()
        self.noise_pred = noise_pred
        self.diffusion = diffusion
        self.config = config

    def t_star(self, score: Tensor, tau: float, span: float, policy: str | None = None) -> Tensor:
        """Choose the depth (B,) int64 for scores (B,), non-decreasing in the score.

        `span` is the distance above tau at which t_max is reached.
        """
        c, policy = self.config, policy or self.config.policy
        if policy == "picture":
            return torch.full_like(score, c.t_picture).long()
        rise = ((score - tau) / max(span, 1e-9)).clamp(0, 1)
        flagged = torch.round(c.t_min + (c.t_max - c.t_min) * rise)
        floor = c.t_floor if policy == "floor" else 0
        return torch.where(score > tau, flagged, torch.full_like(flagged, floor)).long()

    def forward(self, x: Tensor, t_star: Tensor, seeds: Sequence[int]) -> Tensor:
        """Purify scans (B, C, H, W) in [0, 1]; where t_star (B,) is 0, the scan stays unchanged.

        Raises:
            ValueError: t_star outside [0, T - 1], or not one seed per scan.
        """
        if len(seeds) != len(x) or t_star.shape != (len(x),):
            raise ValueError(
                f"need one seed and one t_star per scan, got {len(seeds)} and {tuple(t_star.shape)}"
            )
        if len(t_star):
            self.diffusion.check(int(t_star.min())), self.diffusion.check(int(t_star.max()))
        active = (t_star > 0).nonzero()[:, 0]
        if len(active) == 0:
            return x
        chosen = [seeds[i] for i in active.tolist()]
        pure = self._purify(x[active], t_star[active], chosen)
        if len(active) == len(x):
            return pure
        return x.index_copy(0, active, pure)

    def _purify(self, x: Tensor, t: Tensor, seeds: Sequence[int]) -> Tensor:
        n = self.config.noises
        # all noises of a scan depend only on its seed
        draws = seeded_noise((n, *x.shape[1:]), seeds).to(x).flatten(0, 1)
        x_0, t = to_model(x).repeat_interleave(n, 0), t.repeat_interleave(n, 0)
        x_t = self.diffusion.q_sample(x_0, t, draws)
        if self.config.sampler == "one-step":
            pure = self.diffusion.predict_x0(x_t, t, self.noise_pred(x_t, t))
        elif self.config.sampler == "ddim":
            pure = self._ddim(x_t, t)
        else:
            pure = self._ancestral(x_t, t, seeds)
        return to_pixels(pure.unflatten(0, (-1, n)).mean(1)).clamp(0, 1)

    def _ddim(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Take `steps` evenly spaced deterministic steps from each t_star to the clean scan."""
        steps = self.config.steps
        for i in range(steps):
            now = torch.round(t * (1 - i / steps)).long()
            then = (
                torch.round(t * (1 - (i + 1) / steps)).long()
                if i + 1 < steps
                else torch.full_like(t, -1)
            )
            x_t = self.diffusion.ddim_step(x_t, now, then, self.noise_pred(x_t, now))
        return x_t

    def _ancestral(self, x_t: Tensor, t: Tensor, seeds: Sequence[int]) -> Tensor:
        """Take every step of Eq. 14-15 from each scan's t_star down to 0."""
        n = self.config.noises
        sources = [torch.Generator().manual_seed(derive_seed(s, STEP_STREAM)) for s in seeds]
        for now in range(int(t.max()), -1, -1):
            active = (t >= now).view(-1, 1, 1, 1)
            step = torch.full_like(t, now)
            # drawn only at depths that the scan passes, so that results do not depend on the batch
            noise = torch.stack(
                [
                    torch.randn((n, *x_t.shape[1:]), generator=g)
                    if int(t[i * n]) >= now
                    else torch.zeros(n, *x_t.shape[1:])
                    for i, g in enumerate(sources)
                ]
            )
            # up to t_star steps: recompute activations in the backward pass to save memory
            predicted = checkpoint(self.noise_pred, x_t, step, use_reentrant=False)
            stepped = self.diffusion.p_sample(x_t, step, predicted, noise.flatten(0, 1).to(x_t))
            x_t = torch.where(active, stepped, x_t)
        return x_t
