"""Phase 2: training of the masked autoencoder on clean scans (Algorithm 2, Eq. 21)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.mae import MaskedAutoencoder
from train.data.augment import AugmentConfig, augment
from train.data.corpus import Corpus
from train.data.dataset import Sample, ScanDataset, batches
from train.device import autocast
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn


@dataclass(frozen=True)
class MAETrainConfig:
    """Loss of the autoencoder; a share `lattice` of batches gets the masks that are used to score.

    Differs from the paper, which draws all masks at random (lattice 0).
    """

    lattice: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.lattice <= 1:
            raise ValueError(f"lattice must be in [0, 1], got {self.lattice}")


@dataclass(frozen=True)
class MAEPhase:
    """Table of a preset: training of the masked autoencoder."""

    fit: FitConfig = field(default_factory=FitConfig)
    loss: MAETrainConfig = field(default_factory=MAETrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def build_loss(config: MAETrainConfig, changes: AugmentConfig) -> LossFn:
    """Build the loss: mean squared error on masked patches (Eq. 21)."""

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        if not isinstance(model, MaskedAutoencoder):
            raise TypeError(f"expected a MaskedAutoencoder, got {type(model).__name__}")
        x = augment(sample.x, changes, generator)
        with autocast(x.device):
            if float(torch.rand(1, generator=generator)) >= config.lattice:
                return model.loss(x, generator)
            masks = model.complementary(x.device)
            chosen = torch.randint(len(masks), (len(x),), generator=generator).to(x.device)
            return model.masked_error(x, masks[chosen]).mean()

    return loss


def build_validation(
    data: ScanDataset, device: torch.device, limit: int = 200
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: errors with random masks and with the masks that are used to score."""
    data = data.thin(limit, truncate=True)

    def validate(model: nn.Module) -> dict[str, float]:
        if not isinstance(model, MaskedAutoencoder):
            raise TypeError(f"expected a MaskedAutoencoder, got {type(model).__name__}")
        random, lattice = 0.0, 0.0
        for rows in batches(len(data), 50):
            x, _ = data.batch(rows, device)
            with torch.no_grad(), autocast(device):
                random += float(model.loss(x, torch.Generator().manual_seed(rows.start))) * len(x)
                lattice += float((x - model.reconstruct(x)).square().mean()) * len(x)
        figures = {"random": random / len(data), "lattice": lattice / len(data)}
        return {**figures, "score": -figures["random"] - figures["lattice"]}

    return validate


def _build_recipe(
    settings: MAEPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    return Recipe(
        settings.fit,
        build_loss(settings.loss, settings.augment),
        build_validation(corpus.val, device),
    )


PHASE = Phase(
    name="mae",
    file="mae.safetensors",
    help="the detector's masked autoencoder (phase 2 of the paper)",
    config=MAEPhase,
    shape=lambda preset: preset.system.mae,
    network=MaskedAutoencoder,
    recipe=_build_recipe,
)
