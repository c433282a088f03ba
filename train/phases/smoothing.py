"""Smoothed classifier: denoiser and expert, trained together on noised averages of scans."""

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
from train.data.dataset import Sample, ScanDataset
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn

NOISED_COPIES = 40  # of each validation scan


@dataclass(frozen=True)
class SmoothedTrainConfig:
    """Loss of the smoothed classifier; `denoise` weighs the denoiser's part (Eq. 16).

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
    """Table of a preset: shape and training of the smoothed classifier, no part of the system."""

    shape: SmoothedConfig = field(default_factory=SmoothedConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    loss: SmoothedTrainConfig = field(default_factory=SmoothedTrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def build_loss(config: SmoothedTrainConfig, changes: AugmentConfig) -> LossFn:
    """Build the loss: cross-entropy through the denoiser + denoise * ||noise - noise_pred||^2."""

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        classifier, (x, y) = _check_type(model), sample[:2]
        average = F.avg_pool2d(x, x.shape[-1] // classifier.config.side)
        average = classifier.pool(augment(average, changes, generator))
        noise = classifier.inside * torch.randn(average.shape, generator=generator).to(average)
        if config.adv:
            size = config.adv * (1 + torch.rand(len(x), generator=generator)) / 2
            average = average + size.to(x).view(-1, 1, 1, 1) * _compute_ascent(
                classifier, average, noise, y
            )
        found, denoised = classifier.predict_noise(classifier.add_noise(average, noise))
        wrong = F.cross_entropy(classifier.classify(denoised), y)
        return wrong + config.denoise * F.mse_loss(found, noise)

    return loss


def build_validation(
    data: ScanDataset, config: SmoothedTrainConfig, device: torch.device, limit: int = 300
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: accuracies over noised copies of each scan, weighted as in training.

    'noised' is the share of copies classified correctly, 'smoothed' that of scans where most are,
    and 'score' that of scans where enough are for a certificate at `eps` from endless copies.
    """
    data = data.thin(limit, truncate=True)
    weights = data.weights / data.weights.sum()

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        classifier, shares = _check_type(model), []
        c = classifier.config
        for row in range(len(data)):
            x, y = data.batch([row], device)
            seeds = range(row * NOISED_COPIES, (row + 1) * NOISED_COPIES)
            noise = seeded_noise((1, c.side, c.side), seeds).to(x)
            logits = classifier(classifier.add_noise(classifier.pool(x), noise))
            shares.append(float((logits.argmax(1) == y).double().mean()))
        right = torch.tensor(shares, dtype=weights.dtype)
        enough = NormalDist().cdf(config.eps * classifier.reach / c.sigma)
        return {
            "noised": float(weights @ right),
            "smoothed": float(weights @ (right > 0.5).to(weights)),
            "score": float(weights @ (right >= enough).to(weights)),
        }

    return validate


def _compute_ascent(classifier: Smoothed, average: Tensor, noise: Tensor, y: Tensor) -> Tensor:
    """Return the loss gradients (B, 1, s, s) by the averages, each of L2 norm 1."""
    moved = average.clone().requires_grad_(True)
    logits = classifier(classifier.inside * classifier.add_noise(moved, noise))
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), moved)
    return F.normalize(grad.flatten(1), dim=1).view_as(average)


def _check_type(model: nn.Module) -> Smoothed:
    if not isinstance(model, Smoothed):
        raise TypeError(f"expected a Smoothed, got {type(model).__name__}")
    return model


def _build_recipe(
    settings: SmoothedPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    return Recipe(
        settings.fit,
        build_loss(settings.loss, settings.augment),
        build_validation(corpus.val, settings.loss, device),
    )


PHASE = Phase(
    name="smoothed",
    file=FILE,
    help="the smoothed classifier, whose answers can be certified; a separate model",
    config=SmoothedPhase,
    shape=lambda preset: preset.smoothed.shape,
    network=Smoothed,
    recipe=_build_recipe,
    is_optional=True,
    needs_brain_scans=True,
)
