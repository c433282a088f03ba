"""Phase 1: training of the diffusion model (Algorithm 1, Eq. 16), clean or with attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.attacks import PGD
from core.attacks.base import LogitsFn
from core.diffusion import Diffusion, seeded_noise, to_model
from core.unet import UNet
from train.data.augment import AugmentConfig, augment
from train.data.corpus import Corpus
from train.data.dataset import Sample, ScanDataset, batches
from train.device import autocast, autocast_logits
from train.phases.classifier import MIXTURE, PLAIN
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn

CLASSIFIER_FILES = (MIXTURE.file, PLAIN.file)  # attacked in training


@dataclass(frozen=True)
class DiffusionConfig:
    """Loss of the diffusion model; `t_max` is the deepest step trained on (the paper: 999).

    Differs from the paper: a share `adv_share` of the scans is attacked before noise is added, by
    PGD on one of the classifiers with eps up to `adv_eps`; the network learns to remove noise and
    perturbation together (0 is the paper's loss).
    """

    t_max: int = 999
    adv_share: float = 0.0
    adv_eps: float = 0.02
    adv_steps: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.t_max <= 999:
            raise ValueError(f"t_max must be in [1, 999], got {self.t_max}")
        if not 0 <= self.adv_share <= 1 or not self.adv_eps > 0 or self.adv_steps < 1:
            raise ValueError(f"adv_share, adv_eps or adv_steps out of range in {self}")


@dataclass(frozen=True)
class DiffusionPhase:
    """Table of a preset: training of the diffusion model."""

    fit: FitConfig = field(default_factory=FitConfig)
    loss: DiffusionConfig = field(default_factory=DiffusionConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def build_loss(
    config: DiffusionConfig,
    changes: AugmentConfig,
    diffusion: Diffusion,
    targets: Sequence[LogitsFn] = (),
) -> LossFn:
    """Build the loss E ||noise - noise_pred(x_t, t)||^2, t uniform in [0, t_max] (Eq. 16-17).

    `targets` are the classifiers to attack; one is drawn for each batch.
    """

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        x, y = sample.x, sample.y
        x = augment(x, changes, generator)
        hit = x
        attacked = round(len(x) * config.adv_share)
        if attacked:
            share = 0.3 + 0.7 * float(torch.rand(1, generator=generator))
            target = targets[int(torch.randint(len(targets), (1,), generator=generator))]
            seeds = torch.randint(2**31, (attacked,), generator=generator).tolist()
            attack = _build_attack(share * config.adv_eps, config.adv_steps)
            found = attack(autocast_logits(target, x.device), x[:attacked], y[:attacked], seeds)
            hit = torch.cat([found, x[attacked:]])
        t = torch.randint(config.t_max + 1, (len(x),), generator=generator).to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x)
        return _measure_error(model, diffusion, x, hit, t, noise).mean()

    return loss


def build_validation(
    data: ScanDataset,
    diffusion: Diffusion,
    config: DiffusionConfig,
    device: torch.device,
    targets: Sequence[LogitsFn] = (),
    limit: int = 64,
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: the noise-prediction error at fixed depths with fixed noise.

    With attacks in training every other scan is attacked, on each target in turn.
    """
    depths = [int(config.t_max * share) for share in (0.05, 0.2, 0.4, 0.8)]
    x, y = data.thin(limit, truncate=True).all(device)
    hit = x.clone()
    if config.adv_share:
        for i, target in enumerate(targets):
            rows = list(range(2 * i + 1, len(x), 2 * len(targets)))
            attack = _build_attack(0.75 * config.adv_eps, 2 * config.adv_steps)
            hit[rows] = attack(autocast_logits(target, device), x[rows], y[rows], rows)

    def validate(model: nn.Module) -> dict[str, float]:
        figures = {}
        for depth in depths:
            errors = []
            for rows in batches(len(x), 16):
                noise = seeded_noise(x.shape[1:], list(rows)).to(x)
                with torch.no_grad():
                    t = torch.full((len(rows),), depth, device=device)
                    errors += _measure_error(
                        model, diffusion, x[[*rows]], hit[[*rows]], t, noise
                    ).tolist()
            figures[f"t{depth}"] = sum(errors) / len(errors)
        return {**figures, "score": -sum(figures.values()) / len(figures)}

    return validate


def _measure_error(
    model: nn.Module, diffusion: Diffusion, x: Tensor, hit: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Return the squared error (B,) of the noise that turns `hit`, noised to t, back into x."""
    x_t = diffusion.q_sample(to_model(hit), t, noise).contiguous(memory_format=torch.channels_last)
    with autocast(x.device):
        predicted = model(x_t, t)
    wanted = diffusion.implied_noise(x_t, t, to_model(x))
    error: Tensor = (predicted.float() - wanted).square().flatten(1).mean(1)
    return error


def _build_attack(eps: float, steps: int) -> PGD:
    return PGD(eps=eps, alpha=1.5 * eps / steps, steps=steps)


def _build_recipe(
    settings: DiffusionPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    schedule = Diffusion().to(device)
    targets: list[LogitsFn] = []
    if settings.loss.adv_share:
        trained = system(CLASSIFIER_FILES)
        targets = [trained.classifier_logits, trained.plain_logits]
    return Recipe(
        settings.fit,
        build_loss(settings.loss, settings.augment, schedule, targets),
        build_validation(corpus.val, schedule, settings.loss, device, targets),
    )


PHASE = Phase(
    name="diffusion",
    file="diffusion.safetensors",
    help="the purifier's noise-predicting U-Net (phase 1 of the paper); may need both classifiers",
    config=DiffusionPhase,
    shape=lambda preset: preset.system.unet,
    network=UNet,
    recipe=_build_recipe,
)
