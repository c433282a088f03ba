"""Fused score of the detector: a logistic regression on clean and attacked training scans.

Ordinary and detector-aware adversarial examples get half of the weight each. Detector-aware ones
are made against the previous fit, with steps in turn against detector and classifier; those of each
round are added to the next fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attacks import FGSM, PGD
from core.attacks.base import to_eight_bit
from core.detector import Detector, clip_features
from core.metrics import auroc
from core.pipeline import MedFedPure
from train.calibration.logistic import fit_logistic
from train.data.dataset import map_batches, space_evenly
from train.device import autocast
from train.trainer import ReportFn

MAX_FEATURE_SHARE = 0.5  # of the score's distance between attacked and clean scans
MAX_AUROC_COST = 0.01  # AUROC that a smaller share may cost
CHANCE_ERRORS = 2.0  # standard errors within which a difference counts as chance


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the ordinary attacks; rounds, scans a round and steps of the detector-aware one.

    0 rounds: no adaptive examples. The number of steps is even: the last is the classifier's.
    """

    eps: tuple[float, ...] = (0.004, 0.008, 0.015, 0.031)
    ridge: float = 1e-2
    seed: int = 0
    hidden_scans: int = 24
    hidden_rounds: int = 2
    hidden_steps: int = 40
    hidden_eps: float = 0.015

    def __post_init__(self) -> None:
        if not self.eps or min(self.eps) <= 0 or self.ridge <= 0 or self.hidden_eps <= 0:
            raise ValueError(f"eps, ridge and hidden_eps must be above 0, got {self}")
        if self.hidden_scans < 1 or self.hidden_rounds < 0:
            raise ValueError(f"need hidden_scans of 1 or more and hidden_rounds of 0, got {self}")
        if self.hidden_steps < 2 or self.hidden_steps % 2:
            raise ValueError(f"hidden_steps must be even and at least 2, got {self.hidden_steps}")


def fuse(
    system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig, report: ReportFn = print
) -> float:
    """Fit the fused score in place on training scans x (B, C, H, W) with labels y (B,).

    Returns:
        The largest share of one feature in the score: see `compute_feature_shares`.
    """
    report(f"attacking {len(x)} training scans for the detector")
    detector, clean = system.detector, _measure_features(system.detector, x)
    ordinary = _measure_features(detector, _attack_ordinary(system, x, y, config))
    largest_share = fit(detector, clean, [ordinary], config.ridge)
    count = min(config.hidden_rounds * config.hidden_scans, len(x))
    positions = torch.tensor(space_evenly(len(x), count) if count else [], dtype=torch.long)
    adaptive: list[Tensor] = []
    for round_index in range(config.hidden_rounds):
        subset = positions[round_index :: config.hidden_rounds]
        report(
            f"detector-aware attack on {len(subset)} of them, "
            f"round {round_index + 1} of {config.hidden_rounds}"
        )
        for rows in subset.split(16):
            seeds = [config.seed + int(row) for row in rows]
            evading = make_detector_aware(system, x[rows], y[rows], config, seeds)
            adaptive.append(_measure_features(detector, evading))
        if adaptive:
            largest_share = fit(detector, clean, [ordinary, torch.cat(adaptive)], config.ridge)
    if not detector.weight.any():
        report("no feature separates attacked from clean scans: nothing will be flagged")
    return largest_share


def make_detector_aware(
    system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig, seeds: Sequence[int]
) -> Tensor:
    """Return PGD examples (B, C, H, W) that mislead the classifier and evade the fused score.

    Steps lower the score and raise the classifier's loss in turn; results are quantized to 8 bits.
    """
    steps, eps, turn = config.hidden_steps, config.hidden_eps, 0
    truth = F.one_hot(y, len(system.classifier.bias))

    def logits(z: Tensor) -> Tensor:  # the last step is the classifier's
        nonlocal turn
        turn += 1
        if turn % 2 == 0:
            return system.classifier_logits(z)
        with autocast(z.device):
            score = system.detector(z).scores["fused"].float()
        # whatever the score: no softmax of numbers within -1 and 1 swallows its gradient
        bounded: Tensor = score / (1 + score.detach().abs())
        return truth * bounded[:, None]

    return PGD(eps, 2.5 * eps / steps, steps, eight_bit=True)(logits, x, y, seeds)


def _attack_ordinary(system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig) -> Tensor:
    """Return each scan once per eps: PGD on the plain or trained classifier, FGSM or sign noise."""
    generator = torch.Generator().manual_seed(config.seed)
    kinds: list[Callable[[Tensor, Tensor, float], Tensor]] = [
        lambda b, t, e: PGD(eps=e, alpha=e / 4, steps=7, eight_bit=True)(system.plain_logits, b, t),
        lambda b, t, e: PGD(eps=e, alpha=e / 4, steps=7, eight_bit=True)(
            system.classifier_logits, b, t
        ),
        lambda b, t, e: to_eight_bit(b, FGSM(eps=e)(system.plain_logits, b, t)),
        lambda b, t, e: to_eight_bit(
            b, (b + e * (torch.rand(b.shape, generator=generator) - 0.5).sign().to(b)).clamp(0, 1)
        ),
    ]
    out = []
    for n, eps in enumerate(config.eps):
        for i, (b, t) in enumerate(zip(x.split(50), y.split(50), strict=True)):
            out.append(kinds[(n + i) % len(kinds)](b, t, eps))
    return torch.cat(out)


def fit(detector: Detector, clean: Tensor, families: Sequence[Tensor], ridge: float) -> float:
    """Fit a ridge logistic regression to features (N, F), clean ones and families of attacked ones.

    Features are standardised on clean scans; classes weigh the same, and so do families. Weights
    are non-negative, so raising a feature never lowers the score. A score that rests on one feature
    is evaded by evading that feature: the penalty of a feature with a share above
    `MAX_FEATURE_SHARE` rises until its share is smaller, or until the fit's AUROC has fallen by
    `MAX_AUROC_COST`.

    Returns:
        The largest share of one feature in the score.
    """
    longest = max(len(family) for family in families)
    attacked = torch.cat([f.repeat(-(-longest // len(f)), 1)[:longest] for f in families])
    centre, spread = clean.mean(0), clean.std(0).clamp_min(1e-6)
    detector.centre.copy_(centre)
    detector.spread.copy_(spread)
    zeros, ones = (clip_features((f - centre) / spread) for f in (clean, attacked))
    penalty = torch.full((zeros.shape[1],), ridge, dtype=torch.float64)
    weight, offset = _fit_non_negative(zeros, ones, penalty)
    min_auroc = _measure_auroc(weight, zeros, ones) - MAX_AUROC_COST
    share = compute_feature_shares(weight, zeros, ones)
    largest_share = float(share.max())
    for _ in range(60):
        if largest_share <= MAX_FEATURE_SHARE:
            break
        penalty[int(share.argmax())] *= 1.25
        new_weight, new_offset = _fit_non_negative(zeros, ones, penalty)
        if _measure_auroc(new_weight, zeros, ones) < min_auroc:
            break
        share = compute_feature_shares(new_weight, zeros, ones)
        if float(share.max()) < largest_share:
            weight, offset, largest_share = new_weight, new_offset, float(share.max())
    detector.weight.copy_(weight)
    detector.offset.copy_(offset)
    return largest_share


def _fit_non_negative(zeros: Tensor, ones: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Fit without features of negative weight, removed one by one, lowest first."""
    kept = torch.arange(len(penalty))
    while True:
        fitted, offset = fit_logistic(zeros[:, kept], ones[:, kept], penalty[kept])
        if not (fitted < 0).any():
            break
        kept = kept[torch.arange(len(kept)) != fitted.argmin()]
    weight = torch.zeros(len(penalty)).to(fitted)
    weight[kept] = fitted
    return weight, offset


def compute_feature_shares(weight: Tensor, zeros: Tensor, ones: Tensor) -> Tensor:
    """Return each feature's share (F,) of the mean score difference of scans `ones` and `zeros`.

    Features (N, F) are standardised on `zeros`. A difference of means within `CHANCE_ERRORS`
    standard errors counts as 0.
    """
    gap = ones.mean(0) - zeros.mean(0)
    error = (zeros.var(0) / len(zeros) + ones.var(0) / len(ones)).sqrt()
    parts = weight * (gap - CHANCE_ERRORS * error).clamp_min(0).to(weight)
    return parts / parts.sum().clamp_min(1e-12)


def _measure_auroc(weight: Tensor, zeros: Tensor, ones: Tensor) -> float:
    score = torch.cat([zeros, ones]).to(weight) @ weight
    return auroc(score, (torch.arange(len(score)) >= len(zeros)).long())


def _measure_features(detector: Detector, x: Tensor) -> Tensor:
    return map_batches(lambda b: detector(b).features, x)
