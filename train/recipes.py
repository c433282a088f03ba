"""How each part of the system learns: its network, its loss, its figures. Pooled or federated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from core.attacks.base import LogitsFn
from core.diffusion import Diffusion
from core.mae import MaskedAutoencoder
from core.moe import MixtureOfExperts
from core.novelty import Novelty
from core.pipeline import MedFedPure
from core.scan import SIZE
from core.smoothing import FILE as SMOOTHED
from core.smoothing import Smoothed
from core.steganalysis import ResidualNet
from core.unet import UNet
from train.config import ClassifierPhase, Preset
from train.data.corpus import Corpus
from train.phases import classifier, detector, diffusion, mae, smoothing
from train.trainer import FitConfig, LossFn, ValidateFn

PAPER_EPS = 0.015
MAE = "mae.safetensors"
CLASSIFIERS = ("classifier.safetensors", "plain.safetensors")
# phase -> the part of the system that it writes; each comes after those that it learns from
FILES = {
    "mixture": "classifier.safetensors",
    "plain": "plain.safetensors",
    "diffusion": "diffusion.safetensors",
    "mae": MAE,
    "detector": "residual.safetensors",
    "novelty": "novelty.safetensors",
}
BESIDE = {"smoothed": SMOOTHED}  # files that weights may do without: no part of the system
ALL_FILES = FILES | BESIDE
SystemFn = Callable[[Iterable[str]], MedFedPure]


@dataclass(frozen=True)
class Recipe:
    """What a phase hands to `train.trainer.fit`. `settings` is all of it that a preset decides."""

    fit: FitConfig
    loss: LossFn
    validate: ValidateFn


def phases_of(preset: Preset) -> list[str]:
    """The phases of a preset's system; 'cannot judge' is learned of brain scans' shape alone."""
    return [phase for phase in FILES if _reads_scans(preset) or phase != "novelty"]


def phases_beside(preset: Preset) -> list[str]:
    """The phases whose files are no part of the system: certificates, of brain scans' shape."""
    return list(BESIDE) if _reads_scans(preset) else []


def _reads_scans(preset: Preset) -> bool:
    moe = preset.system.moe
    return (moe.in_chans, moe.img_size) == (1, SIZE)


def network(phase: str, preset: Preset, seed: int) -> nn.Module:
    """The network of a phase as every training of that preset and seed starts with it."""
    system = preset.system
    torch.manual_seed(seed + list(ALL_FILES).index(phase))
    match phase:
        case "mixture":
            return MixtureOfExperts(system.moe)
        case "plain":
            return MixtureOfExperts(system.plain)
        case "diffusion":
            return UNet(system.unet)
        case "mae":
            return MaskedAutoencoder(system.mae)
        case "detector":
            return ResidualNet(system.residual)
        case "smoothed":
            return Smoothed(preset.smoothed.shape)
        case _:
            return Novelty(system.mae.embed_dim)


def settings(phase: str, preset: Preset) -> Any:
    """The preset's table for a phase."""
    return preset.classifier if phase == "mixture" else getattr(preset, phase)


def shape(phase: str, preset: Preset) -> Any:
    """The configuration of a phase's network."""
    system = preset.system
    if phase == "smoothed":
        return preset.smoothed.shape
    shapes = {"mixture": system.moe, "diffusion": system.unet, "detector": system.residual}
    return shapes[phase] if phase in shapes else getattr(system, phase)


def recipe(
    phase: str,
    preset: Preset,
    corpus: Corpus,
    device: torch.device,
    system: SystemFn,
    *,
    calm: bool = False,
) -> Recipe:
    """How a phase learns from a corpus. `calm` leaves out the attacks of a classifier's training.

    `system` gives the whole system with the named files trained: what a phase learns from.

    Raises:
        WeightsError: such a file is not there yet.
    """
    if phase in ("mixture", "plain"):
        return _classifier(getattr(preset, "classifier" if phase == "mixture" else phase),
                           corpus, device, calm)  # fmt: skip
    if phase == "diffusion":
        p, schedule = preset.diffusion, Diffusion().to(device)
        surfaces: list[LogitsFn] = []
        if p.loss.adv_share:
            trained = system(CLASSIFIERS)
            surfaces = [trained.classifier_logits, trained.plain_logits]
        return Recipe(
            p.fit,
            diffusion.loss_function(p.loss, p.augment, schedule, surfaces),
            diffusion.validation(corpus.val, schedule, p.loss, device, surfaces),
        )
    if phase == "mae":
        return Recipe(
            preset.mae.fit,
            mae.loss_function(preset.mae.loss, preset.mae.augment),
            mae.validation(corpus.val, device),
        )
    if phase == "smoothed":
        own = preset.smoothed
        return Recipe(
            own.fit,
            smoothing.loss_function(own.loss, own.augment),
            smoothing.validation(corpus.val, own.loss, device),
        )
    if phase != "detector":
        raise ValueError(f"{phase!r} is not learned in steps")
    trained = system(CLASSIFIERS)
    return Recipe(
        preset.detector.fit,
        detector.loss_function(preset.detector.loss, trained),
        detector.validation(corpus.val, trained, device),
    )


def _classifier(p: ClassifierPhase, corpus: Corpus, device: torch.device, calm: bool) -> Recipe:
    loss = replace(p.loss, adv_eps=0.0) if calm else p.loss
    return Recipe(
        p.warmup if calm else p.fit,
        classifier.loss_function(loss, p.augment),
        classifier.validation(corpus.val, device, PAPER_EPS if loss.adv_eps else 0.0),
    )
