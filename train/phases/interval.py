"""Certified classifier: a small network trained on attacks and on interval bounds together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attacks import PGD
from core.attacks.threat_models import PAPER_EPS
from core.interval import FILE, LEAST_MARGIN, IntervalConfig, IntervalNet
from train.data.augment import AugmentConfig, augment
from train.data.corpus import Corpus
from train.data.dataset import Sample, ScanDataset, batches
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, ScheduledLoss


@dataclass(frozen=True)
class IntervalTrainConfig:
    """Loss of the certified classifier (MTL-IBP; De Palma et al. 2024).

    Up to the share `clean` of training its loss is that of clean scans. Then the size of attack and
    bounds grows linearly, to `eps` at the share `full`. `bounds` is the weight of the bounds' loss,
    the rest that of the attack's (one step from a random start). While the size grows, `tightness`
    weighs intervals whose half-width is above twice the size (Shi et al. 2021).
    """

    eps: float = 0.0153
    bounds: float = 0.3
    tightness: float = 0.5
    clean: float = 0.1
    full: float = 0.6

    def __post_init__(self) -> None:
        if not self.eps > 0 or not 0 < self.bounds <= 1 or self.tightness < 0:
            raise ValueError(
                f"need eps above 0, bounds in (0, 1] and tightness of 0 or more, got {self}"
            )
        if not 0 <= self.clean < self.full <= 1:
            raise ValueError(f"need 0 <= clean < full <= 1, got {self}")

    def grow(self, progress: float) -> float:
        """Return the share of `eps` at a share of training; 0 while it is clean."""
        return min(max((progress - self.clean) / (self.full - self.clean), 0.0), 1.0)


@dataclass(frozen=True)
class IntervalPhase:
    """Table of a preset: shape and training of the certified classifier, no part of the system."""

    shape: IntervalConfig = field(default_factory=IntervalConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    loss: IntervalTrainConfig = field(default_factory=IntervalTrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def build_loss(config: IntervalTrainConfig, changes: AugmentConfig) -> ScheduledLoss:
    """Build the loss of one batch: average, augment, then attack and bound."""

    def loss(
        model: nn.Module, sample: Sample, generator: torch.Generator, progress: float
    ) -> Tensor:
        classifier, y = _check_type(model), sample.y
        average = augment(classifier.pool(sample.x), changes, generator)
        grown = config.grow(progress)
        if not grown:
            return F.cross_entropy(classifier(average), y)
        size = grown * config.eps
        hit = _attack_once(classifier, average, y, size, generator)
        logits, scales = classifier.classify(hit)
        eps = torch.full((len(y),), size).to(average)
        *hidden, (middle, half) = classifier.propagate(average, eps, scales)
        bounded = F.softplus(half - middle * (y * 2 - 1)).mean()  # cross-entropy of the worst case
        attacked = F.cross_entropy(logits, y)
        wide = torch.stack([(1 - 2 * size / width.mean()).relu() for _, width in hidden]).mean()
        tight = config.tightness * (1 - grown) * wide
        return (1 - config.bounds) * attacked + config.bounds * bounded + tight

    return ScheduledLoss(loss)


def build_validation(
    data: ScanDataset, device: torch.device, eps: float = PAPER_EPS, limit: int = 300
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: clean accuracy, and that proven at `eps`, weighted as in training.

    The proven one decides. Single precision serves to choose an epoch, not to certify.
    """
    data = data.thin(limit, truncate=True)
    weights = data.weights / data.weights.sum()

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        classifier = _check_type(model)
        right, proven = [], []
        for rows in batches(len(data), 100):
            x, y = data.batch(rows, device)
            average = classifier.pool(x)
            right += (classifier(average).argmax(1) == y).tolist()
            sizes = torch.full((len(y),), eps).to(average)
            proven += (classifier.bound(average, sizes, y) > LEAST_MARGIN).tolist()
        clean, certified = (
            float(weights @ torch.tensor(marks, dtype=weights.dtype)) for marks in (right, proven)
        )
        return {"clean": clean, "certified": certified, "score": certified + clean / 100}

    return validate


def _attack_once(
    model: IntervalNet, x: Tensor, y: Tensor, eps: float, generator: torch.Generator
) -> Tensor:
    """Attack the network as it reads, with the running statistics, which it leaves as they are."""
    seeds = torch.randint(2**31, (len(x),), generator=generator).tolist()
    was_training = model.training
    try:
        return PGD(eps, 1.25 * eps, steps=1)(model.eval(), x, y, seeds)
    finally:
        model.train(was_training)


def _check_type(model: nn.Module) -> IntervalNet:
    if not isinstance(model, IntervalNet):
        raise TypeError(f"expected an IntervalNet, got {type(model).__name__}")
    return model


def _build_recipe(
    settings: IntervalPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    return Recipe(
        settings.fit,
        build_loss(settings.loss, settings.augment),
        build_validation(corpus.val, device),
    )


PHASE = Phase(
    name="certified",
    file=FILE,
    help="the classifier whose answers can be certified; a separate model",
    config=IntervalPhase,
    shape=lambda preset: preset.certified.shape,
    network=IntervalNet,
    recipe=_build_recipe,
    is_optional=True,
    needs_brain_scans=True,
)
