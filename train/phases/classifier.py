"""Phase 3: training of the mixture of experts, adversarial, and of the plain classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attacks import PGD
from core.attacks.base import noise_in_ball, project
from core.attacks.threat_models import PAPER_EPS
from core.moe import MixtureOfExperts, MixtureOutput, mixture_loss
from train.data.augment import AugmentConfig, augment, augment_with_masks
from train.data.corpus import Corpus
from train.data.dataset import Sample, ScanDataset, batches
from train.data.styles import StyleConfig, restyle
from train.data.transplants import TransplantConfig, transplant
from train.device import autocast, autocast_logits
from train.phases.fedem import em_loss
from train.phases.map_loss import compute_map_loss
from train.phases.phase import Phase, Recipe, SystemFn
from train.trainer import FitConfig, LossFn

OBJECTIVES = ("mixture", "em")
UNCHANGED, UNMOVED = StyleConfig(share=0.0), TransplantConfig()


@dataclass(frozen=True)
class ClassifierConfig:
    """Loss of the mixture (Eq. 9) and the adversarial examples it is trained on.

    `adv_eps` 0 trains the plain classifier. Otherwise a share `adv_clean` of each batch stays clean
    and the rest gets perturbations of up to adv_eps, found by `adv_steps` gradient steps from a
    random start (one: FGSM-RS, Wong et al. 2020). `objective` is 'mixture', or 'em': the M-step of
    FedEM for a gate of the client, without all other terms. A share
    `smoothing` of a label is spread over all classes. `map_loss` is the weight of
    the tumour maps' loss where the data have masks, and `map_attack` its weight in what an
    adversarial example is to make large.
    """

    beta: float = 1e-4
    gamma: float = 0.0
    expert_loss: float = 0.5
    adv_eps: float = 0.018
    adv_steps: int = 1
    adv_clean: float = 0.25
    smoothing: float = 0.0
    map_loss: float = 0.0
    map_attack: float = 0.0
    objective: str = "mixture"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise ValueError(f"objective must be one of {known}, got {self.objective!r}")
        others = ("beta", "gamma", "expert_loss", "smoothing", "map_loss")
        if self.objective == "em" and any(getattr(self, name) for name in others):
            given = ", ".join(f"{name} {getattr(self, name)}" for name in others)
            raise ValueError(f"all of these must be 0 with objective 'em', got {given}")
        if self.map_loss < 0 or self.map_attack < 0 or not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing, map_loss or map_attack out of range in {self}")
        if self.adv_eps < 0 or self.adv_steps < 1 or not 0 <= self.adv_clean <= 1:
            raise ValueError(f"adv_eps, adv_steps or adv_clean out of range in {self}")


@dataclass(frozen=True)
class ClassifierPhase:
    """Table of a preset: training of a mixture; adversarial training follows a clean `warmup`."""

    fit: FitConfig = field(default_factory=FitConfig)
    warmup: FitConfig = field(default_factory=FitConfig)
    loss: ClassifierConfig = field(default_factory=ClassifierConfig)
    transplants: TransplantConfig = field(default_factory=TransplantConfig)
    styles: StyleConfig = field(default_factory=StyleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        moves = self.transplants
        if (moves.tumour or moves.healthy or moves.covered) and not self.loss.map_loss:
            raise ValueError("transplants need tumour masks: set map_loss above 0")


def build_loss(
    config: ClassifierConfig,
    changes: AugmentConfig,
    styles: StyleConfig = UNCHANGED,
    moves: TransplantConfig = UNMOVED,
) -> LossFn:
    """Build the loss of one batch: transplant, restyle, augment, attack, classify."""

    def loss(model: nn.Module, sample: Sample, generator: torch.Generator) -> Tensor:
        if not isinstance(model, MixtureOfExperts):
            raise TypeError(f"expected a MixtureOfExperts, got {type(model).__name__}")
        if config.objective == "em" and model.config.gate != "client":
            raise ValueError(f"objective 'em' needs gate 'client', got {model.config.gate!r}")
        # An expert sees averages, so an L-inf ball on its grid is as large as on the scan's own:
        # augmenting and attacking at the finest grid in use saves most of the work.
        x = F.avg_pool2d(sample.x, sample.x.shape[-1] // max(model.config.sides))
        # labels alone: masks must not change the scans either
        sample = sample._replace(x=x) if config.map_loss else Sample(x, sample.y)
        if config.map_loss or styles.share:
            sample = _vary(sample, changes, styles, moves, generator)
        else:
            sample = sample._replace(x=augment(x, changes, generator))
        if config.adv_eps:
            sample = sample._replace(x=_attack_batch(model, sample, config, generator))
        output = _compute_outputs(model, sample.x)
        if config.objective == "em":
            return em_loss(output, sample.y)
        loss = mixture_loss(
            output, sample.y, model, beta=config.beta, gamma=config.gamma,
            expert=config.expert_loss, smoothing=config.smoothing,
        )  # fmt: skip
        return loss + config.map_loss * _compute_map_loss(output, sample)

    return loss


def _vary(
    sample: Sample,
    changes: AugmentConfig,
    styles: StyleConfig,
    moves: TransplantConfig,
    generator: torch.Generator,
) -> Sample:
    """Transplant, restyle and augment a batch in random order: any scan may then be attacked."""
    x, y, masks, is_outlined = sample
    if masks is None or is_outlined is None:
        masks, is_outlined = torch.zeros_like(x[:, :1]), torch.zeros_like(y, dtype=torch.bool)
    masks = F.adaptive_avg_pool2d(masks, x.shape[-1])
    sample = transplant(Sample(x, y, masks, is_outlined), moves, generator)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    x, y, masks, is_outlined = (t[order] for t in sample if t is not None)
    x, masks = restyle(x, masks, styles, generator)
    x, masks = augment_with_masks(x, masks, changes, generator)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    return Sample(x[order], y[order], masks[order], is_outlined[order])


def _compute_outputs(model: MixtureOfExperts, x: Tensor) -> MixtureOutput:
    with autocast(x.device):
        return model.outputs(x.contiguous(memory_format=torch.channels_last))


def _compute_map_loss(output: MixtureOutput, sample: Sample) -> Tensor:
    if not output.maps or sample.masks is None or sample.is_outlined is None:
        return torch.zeros((), device=sample.x.device)
    return compute_map_loss(output.maps, sample.masks, sample.is_outlined)


def _attack_batch(
    model: MixtureOfExperts, sample: Sample, config: ClassifierConfig, generator: torch.Generator
) -> Tensor:
    attacked = round(len(sample.x) * (1 - config.adv_clean))
    clean = sample.x[attacked:]
    part = Sample(*(None if t is None else t[:attacked] for t in sample))  # type: ignore[arg-type]
    x, y = part.x, part.y
    seeds = torch.randint(2**31, (len(x),), generator=generator).tolist()
    delta = noise_in_ball(x, config.adv_eps, "linf", seeds)
    alpha = (1.25 if config.adv_steps == 1 else 2.0 / config.adv_steps) * config.adv_eps

    model.eval()  # attack the model that will be deployed, and leave its running statistics alone
    for _ in range(config.adv_steps):
        hit = (x + delta).clamp(0, 1).requires_grad_()
        output = _compute_outputs(model, hit)
        goal = F.nll_loss(output.logits, y, reduction="sum")
        if config.map_attack:
            goal = goal + config.map_attack * len(x) * _compute_map_loss(output, part)
        (grad,) = torch.autograd.grad(goal, hit)
        delta = project(delta + alpha * grad.sign(), config.adv_eps, "linf")
    model.train()
    return torch.cat([(x + delta).clamp(0, 1), clean])


def build_validation(
    data: ScanDataset, device: torch.device, eps: float, limit: int = 300
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the validation: clean accuracy and accuracy under a short attack, weighted.

    The weights are those of training: near-duplicates must not decide on the epoch. With `eps` 0
    clean accuracy alone decides: an untrained model is the hardest to mislead.
    """
    data = data.thin(limit, truncate=True)
    weights = data.weights / data.weights.sum()

    def mean(values: list[float]) -> float:
        return float(weights @ torch.tensor(values, dtype=weights.dtype))

    def validate(model: nn.Module) -> dict[str, float]:
        if not isinstance(model, MixtureOfExperts):
            raise TypeError(f"expected a MixtureOfExperts, got {type(model).__name__}")

        logits_of = autocast_logits(model, device)
        clean, attacked, nll = [], [], []
        for rows in batches(len(data), 100):
            x, y = data.batch(rows, device)
            x = F.avg_pool2d(x, x.shape[-1] // max(model.config.sides))
            with torch.no_grad():
                logits = logits_of(x)
            clean += (logits.argmax(1) == y).tolist()
            nll += F.cross_entropy(logits, y, reduction="none").tolist()
            if eps:
                x = PGD(eps=eps, alpha=eps / 2, steps=3)(logits_of, x, y)
                with torch.no_grad():
                    attacked += (logits_of(x).argmax(1) == y).tolist()
        figures = {"clean": mean(clean), "nll": mean(nll)}
        if not eps:
            return {**figures, "score": figures["clean"]}
        pgd = mean(attacked)
        return {**figures, "pgd": pgd, "score": (figures["clean"] + pgd) / 2}

    return validate


def _build_recipe(
    settings: ClassifierPhase, corpus: Corpus, device: torch.device, system: SystemFn, calm: bool
) -> Recipe:
    loss = replace(settings.loss, adv_eps=0.0) if calm else settings.loss
    if loss.map_loss and corpus.train.masks is None:
        raise ValueError(
            "training with map_loss needs tumour masks: the data folder has none for these scans"
        )
    return Recipe(
        settings.warmup if calm else settings.fit,
        build_loss(loss, settings.augment, settings.styles, settings.transplants),
        build_validation(corpus.val, device, PAPER_EPS if loss.adv_eps else 0.0),
    )


MIXTURE = Phase(
    name="mixture",
    file="classifier.safetensors",
    help="the mixture of experts, adversarially trained (phase 3 of the paper)",
    config=ClassifierPhase,
    table="classifier",
    shape=lambda preset: preset.system.moe,
    network=MixtureOfExperts,
    recipe=_build_recipe,
    is_adversarial=True,
)
PLAIN = Phase(
    name="plain",
    file="plain.safetensors",
    help="the plain classifier, trained without adversarial examples",
    config=ClassifierPhase,
    shape=lambda preset: preset.system.plain,
    network=MixtureOfExperts,
    recipe=_build_recipe,
)
