"""Phase 1: pretraining of the diffusion model on clean scans (Algorithm 1, Eq. 16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.diffusion import Diffusion, seeded_noise, to_model
from train.augment import AugmentConfig, augment
from train.task import Data, LossFn, autocast, batches, spaced


@dataclass(frozen=True)
class DiffusionConfig:
    """`t_max` is the deepest step trained on (the paper: 999); less stays where it is used."""

    t_max: int = 999

    def __post_init__(self) -> None:
        if not 1 <= self.t_max <= 999:
            raise ValueError(f"t_max must be in [1, 999], got {self.t_max}")


def loss_function(config: DiffusionConfig, changes: AugmentConfig, diffusion: Diffusion) -> LossFn:
    """E ||noise - noise_pred(x_t, t)||^2 with t uniform in [0, t_max] (Eq. 16-17)."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        x = augment(x, changes, generator)
        t = torch.randint(config.t_max + 1, (len(x),), generator=generator).to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        return _error(model, diffusion, x, t, noise).mean()

    return loss


def validation(
    data: Data, diffusion: Diffusion, config: DiffusionConfig, device: torch.device, limit: int = 64
) -> Callable[[nn.Module], dict[str, float]]:
    """Noise-prediction error on validation scans at fixed depths with fixed noise."""
    keep = spaced(len(data), limit)
    depths = [int(config.t_max * share) for share in (0.05, 0.2, 0.4, 0.8)]

    def validate(model: nn.Module) -> dict[str, float]:
        figures = {}
        for depth in depths:
            errors = []
            for rows in batches(len(keep), 16):
                x, _ = data.batch([keep[i] for i in rows], device)
                noise = seeded_noise(x.shape[1:], list(rows)).to(x)
                with torch.no_grad():
                    t = torch.full((len(x),), depth, device=device)
                    errors += _error(model, diffusion, x, t, noise).tolist()
            figures[f"t{depth}"] = sum(errors) / len(errors)
        return {**figures, "score": -sum(figures.values()) / len(figures)}

    return validate


def _error(model: nn.Module, diffusion: Diffusion, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    x_t = diffusion.q_sample(to_model(x), t, noise).contiguous(memory_format=torch.channels_last)
    with autocast(x.device):
        predicted = model(x_t, t)
    error: Tensor = (predicted.float() - noise).square().flatten(1).mean(1)
    return error
