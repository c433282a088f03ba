"""The smoothed reader: denoiser and classifier learn together, from noised averages of scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.diffusion import seeded_noise
from core.smoothing import FILE, Smoothed, SmoothedConfig
from train.data.augment import AugmentConfig, augment
from train.data.corpus import Corpus
from train.data.dataset import ScanDataset
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn

DRAWS = 40  # noised copies of a validation scan


@dataclass(frozen=True)
class SmoothedTrainConfig:
    """`denoise` weighs the diffusion model's loss (Eq. 16) against the classifier's cross-entropy.

    `adv` above 0 moves each average by up to that L2 norm, up the gradient of the loss, before the
    same noise is added (one step of SmoothAdv, Salman et al. 2019). `eps` is the L-inf size of
    perturbation that the validation score counts.
    """

    denoise: float = 1.0
    adv: float = 0.0
    eps: float = 0.015

    def __post_init__(self) -> None:
        if min(self.denoise, self.adv) < 0 or not self.eps > 0:
            raise ValueError(f"denoise and adv must be 0 or more, eps positive, got {self}")


@dataclass(frozen=True)
class SmoothedPhase:
    """Table of a preset: shape and training of the certified reader, no part of the system."""

    shape: SmoothedConfig = field(default_factory=SmoothedConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    loss: SmoothedTrainConfig = field(default_factory=SmoothedTrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def loss_function(config: SmoothedTrainConfig, changes: AugmentConfig) -> LossFn:
    """Cross-entropy through the denoiser + denoise * ||noise - noise_pred||^2."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        reader = _smoothed(model)
        average = F.avg_pool2d(x, x.shape[-1] // reader.config.side)
        average = reader.pool(augment(average, changes, generator))
        noise = reader.inside * torch.randn(average.shape, generator=generator).to(average)
        if config.adv:
            size = config.adv * (1 + torch.rand(len(x), generator=generator)) / 2
            average = average + size.to(x).view(-1, 1, 1, 1) * _uphill(reader, average, noise, y)
        found, denoised = reader.predict_noise(reader.add_noise(average, noise))
        wrong = F.cross_entropy(reader.classify(denoised), y)
        return wrong + config.denoise * F.mse_loss(found, noise)

    return loss


def validation(
    data: ScanDataset, config: SmoothedTrainConfig, device: torch.device, limit: int = 300
) -> Callable[[nn.Module], dict[str, float]]:
    """Figures on validation scans, each with its weight in training, from `DRAWS` copies of each.

    'noised' is the share of copies read right, 'smoothed' that of scans whose majority is, and
    'score' that of scans of which enough are for a certificate at `eps`, were the copies endless.
    """
    data = data.thin(limit, truncate=True)
    weights = data.weights / data.weights.sum()

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        reader, shares = _smoothed(model), []
        c = reader.config
        for row in range(len(data)):
            x, y = data.batch([row], device)
            noise = seeded_noise((1, c.side, c.side), range(row * DRAWS, (row + 1) * DRAWS)).to(x)
            logits = reader(reader.add_noise(reader.pool(x), noise))
            shares.append(float((logits.argmax(1) == y).double().mean()))
        right = torch.tensor(shares, dtype=weights.dtype)
        enough = NormalDist().cdf(config.eps * reader.reach / c.sigma)
        return {
            "noised": float(weights @ right),
            "smoothed": float(weights @ (right > 0.5).to(weights)),
            "score": float(weights @ (right >= enough).to(weights)),
        }

    return validate


def _uphill(reader: Smoothed, average: Tensor, noise: Tensor, y: Tensor) -> Tensor:
    """Directions (B, 1, s, s) of L2 norm 1 in which the loss of the noised averages grows."""
    moved = average.clone().requires_grad_(True)
    logits = reader(reader.inside * reader.add_noise(moved, noise))
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), moved)
    return F.normalize(grad.flatten(1), dim=1).view_as(average)


def _smoothed(model: nn.Module) -> Smoothed:
    if not isinstance(model, Smoothed):
        raise TypeError(f"expected a Smoothed, got {type(model).__name__}")
    return model


def _recipe(
    settings: SmoothedPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    return Recipe(
        settings.fit,
        loss_function(settings.loss, settings.augment),
        validation(corpus.val, settings.loss, device),
    )


PHASE = Phase(
    name="smoothed",
    file=FILE,
    help="the certified reader (randomized smoothing), a separate model",
    config=SmoothedPhase,
    shape=lambda preset: preset.smoothed.shape,
    network=Smoothed,
    recipe=_recipe,
    is_optional=True,
    needs_brain_scans=True,
)
