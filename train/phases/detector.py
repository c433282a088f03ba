"""Training of the detector's residual network on clean scans and adversarial examples of them.

A third of the examples come from PGD on the trained mixture, a fourth from PGD on the plain
classifier; the rest get random sign noise in blocks of 1 to 8 pixels, against overfitting to the
texture of one attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attacks import PGD, paper_attack
from core.attacks.base import to_eight_bit
from core.metrics import auroc
from core.pipeline import MedFedPure
from core.steganalysis import ResidualNet
from train.data.corpus import Corpus
from train.data.dataset import Sample, ScanDataset, batches
from train.device import autocast
from train.phases.classifier import MIXTURE, PLAIN
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn

BLOCK_SIDES = (1, 2, 2, 4, 8)  # pixels; one is drawn for each scan


@dataclass(frozen=True)
class DetectorTrainConfig:
    """Perturbation sizes from `eps_min` to `eps_max`, found by PGD in `steps` steps, in 8 bits."""

    eps_min: float = 0.005
    eps_max: float = 0.025
    steps: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.eps_min <= self.eps_max or self.steps < 1:
            raise ValueError(f"need 0 < eps_min <= eps_max and steps of 1 or more, got {self}")


@dataclass(frozen=True)
class DetectorPhase:
    """Table of a preset: training of the detector's residual network."""

    fit: FitConfig = field(default_factory=FitConfig)
    loss: DetectorTrainConfig = field(default_factory=DetectorTrainConfig)


def build_loss(config: DetectorTrainConfig, system: MedFedPure) -> LossFn:
    """Build the loss: binary cross-entropy of clean scans against adversarial examples of them."""

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        x, y = sample.x, sample.y
        if float(torch.rand(1, generator=generator)) < 0.5:
            x = x.flip(3)
        share = float(torch.rand(1, generator=generator))
        eps = config.eps_min + share * (config.eps_max - config.eps_min)
        seeds = torch.randint(2**31, (len(x),), generator=generator).tolist()
        first, second = len(x) // 3, len(x) // 3 + len(x) // 4
        attack = PGD(eps=eps, alpha=eps / 3, steps=config.steps, eight_bit=True)
        attacked = [_add_block_noise(x[second:], eps, generator)]
        for part, logits_fn in (
            (slice(0, first), system.classifier_logits),
            (slice(first, second), system.plain_logits),
        ):
            if len(x[part]):
                attacked.append(attack(logits_fn, x[part], y[part], seeds[part]))
        both = torch.cat([x, *attacked]).contiguous(memory_format=torch.channels_last)
        with autocast(x.device):
            log_odds = model(both)
        target = torch.arange(len(both), device=x.device) >= len(x)
        return F.binary_cross_entropy_with_logits(log_odds.float(), target.to(torch.float32))

    return loss


def build_validation(
    data: ScanDataset, system: MedFedPure, device: torch.device, limit: int = 96
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: AUROC under the paper's attack in 8 bits, on either classifier."""
    x, y = data.thin(limit, truncate=True).all(device)
    attack = paper_attack(eight_bit=True)
    targets = {"trained": system.classifier_logits, "plain": system.plain_logits}
    hit = {
        name: torch.cat([attack(fn, x[[*r]], y[[*r]], [*r]) for r in batches(len(x), 32)])
        for name, fn in targets.items()
    }

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            clean = torch.cat([model(b) for b in x.split(32)])
            scores = {n: torch.cat([model(b) for b in v.split(32)]) for n, v in hit.items()}
        truth = torch.arange(2 * len(clean)) >= len(clean)
        figures = {
            name: auroc(torch.cat([clean, found]).cpu(), truth.long())
            for name, found in scores.items()
        }
        gap = min(float((found.mean() - clean.mean()).tanh()) for found in scores.values())
        return {**figures, "score": sum(figures.values()) / len(figures) + 1e-3 * gap}

    return validate


def _add_block_noise(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Add random signs in square blocks, half of the time with uniform noise, in 8 bits."""
    out = x.clone()
    for i, scan in enumerate(x):
        block = BLOCK_SIDES[int(torch.randint(len(BLOCK_SIDES), (1,), generator=generator))]
        coarse = torch.rand(
            1, 1, -(-x.shape[2] // block), -(-x.shape[3] // block), generator=generator
        )
        delta = F.interpolate((coarse - 0.5).sign() * eps, scale_factor=float(block))
        delta = delta[0, :, : x.shape[2], : x.shape[3]].to(x)
        if float(torch.rand(1, generator=generator)) < 0.5:
            rough = torch.rand(delta.shape, generator=generator).to(x) * 2 - 1
            delta = (delta + 0.5 * eps * rough).clamp(-eps, eps)
        out[i] = to_eight_bit(scan, (scan + delta).clamp(0, 1))
    return out


def _build_recipe(
    settings: DetectorPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    trained = system((MIXTURE.file, PLAIN.file))
    return Recipe(
        settings.fit,
        build_loss(settings.loss, trained),
        build_validation(corpus.val, trained, device),
    )


PHASE = Phase(
    name="detector",
    file="residual.safetensors",
    help="the detector's residual network; needs both classifiers",
    config=DetectorPhase,
    shape=lambda preset: preset.system.residual,
    network=ResidualNet,
    recipe=_build_recipe,
)
