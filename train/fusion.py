"""The detector's fused score: a logistic regression on training scans and their attacked twins.

Twins of two kinds weigh the same: ordinary attacks, and scans that hide from the detector as it
was fused so far, steps in turn against it and the classifier. What hides teaches the next fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.attack import FGSM, PGD
from core.attack.step import to_eight_bit
from core.detector import Detector, cut_off
from core.metrics import auroc
from core.pipeline import MedFedPure
from train.device import autocast
from train.logistic import logistic
from train.task import ReportFn

MOST = 0.5  # of what tells attacked scans from clean ones may come from one feature
WORTH = 0.01  # of AUROC that sharing it out may cost
SURE = 2.0  # standard errors: what lies within them is chance


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the ordinary attacks, and how often, on how many scans, others hide."""

    eps: tuple[float, ...] = (0.004, 0.008, 0.015, 0.031)
    ridge: float = 1e-2
    seed: int = 0
    hidden_scans: int = 48
    hidden_rounds: int = 2
    hidden_steps: int = 40
    hidden_eps: float = 0.015


def fuse(
    system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig, report: ReportFn = print
) -> float:
    """Fits the fused score in place on training scans x (B, C, H, W) with labels y (B,).

    Returns:
        The largest share that one feature carries.
    """
    report(f"attacking {len(x)} training scans for the detector")
    detector, clean = system.detector, _features(system.detector, x)
    ordinary = _features(detector, _attacked(system, x, y, config))
    most = fit(detector, clean, [ordinary], config.ridge)
    found: list[Tensor] = []
    for now in range(config.hidden_rounds):
        few = torch.linspace(0, len(x) - 1, min(config.hidden_scans, len(x))).round().long()
        report(f"hiding {len(few)} of them from it, {now + 1} of {config.hidden_rounds} times")
        for rows in few.split(16):
            seeds = [now * len(x) + int(row) for row in rows]
            twins = hidden(system, x[rows], y[rows], config, seeds)
            found.append(_features(detector, twins))
        most = fit(detector, clean, [ordinary, torch.cat(found)], config.ridge)
    return most


def hidden(
    system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig, seeds: Sequence[int]
) -> Tensor:
    """Scans (B, C, H, W) after PGD whose steps lower the fused score and the truth's in turn."""
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

    return PGD(eps, 2.5 * eps / steps, steps)(logits, x, y, seeds)


def _attacked(system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig) -> Tensor:
    """Each scan once per eps: PGD on the plain or the trained classifier, FGSM, or sign noise."""
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
    """Ridge logistic regression on features (N, F), clean ones and families of attacked ones.

    Standardised on clean scans; both classes weigh the same, and so do families. No weight is below
    zero: who attacks would raise such a measurement to hide. Who gets round a feature that carries
    the score alone has got round the detector: the penalty of one that carries more than `MOST`
    rises until it does not, or until that costs more than `WORTH` on the scans that it is fitted
    on, where the others tell too little.

    Returns:
        The largest share that one feature carries.
    """
    longest = max(len(family) for family in families)
    attacked = torch.cat([f.repeat(-(-longest // len(f)), 1)[:longest] for f in families])
    centre, spread = clean.mean(0), clean.std(0).clamp_min(1e-6)
    detector.centre.copy_(centre)
    detector.spread.copy_(spread)
    zeros, ones = (cut_off((f - centre) / spread) for f in (clean, attacked))
    penalty = torch.full((zeros.shape[1],), ridge, dtype=torch.float64)
    weight, offset = _raising(zeros, ones, penalty)
    least, share = _apart(weight, zeros, ones) - WORTH, carried(weight, zeros, ones)
    most = float(share.max())
    for _ in range(60):
        if most <= MOST:
            break
        penalty[int(share.argmax())] *= 1.25
        tried, at = _raising(zeros, ones, penalty)
        if _apart(tried, zeros, ones) < least:
            break
        share = carried(tried, zeros, ones)
        if float(share.max()) < most:
            weight, offset, most = tried, at, float(share.max())
    detector.weight.copy_(weight)
    detector.offset.copy_(offset)
    return most


def _raising(zeros: Tensor, ones: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """`logistic` of the features whose weights are not below zero; those of the others are zero."""
    kept = torch.arange(len(penalty))
    while True:
        found, offset = logistic(zeros[:, kept], ones[:, kept], penalty[kept])
        if not (found < 0).any():
            break
        kept = kept[found > 0]
    weight = torch.zeros(len(penalty)).to(found)
    weight[kept] = found
    return weight, offset


def carried(weight: Tensor, zeros: Tensor, ones: Tensor) -> Tensor:
    """Each feature's share (F,) of how far apart the score keeps scans `ones` from `zeros`.

    Features (N, F) are standardised on `zeros`. A difference of means within two standard errors is
    chance, and carries nothing.
    """
    gap = ones.mean(0) - zeros.mean(0)
    error = (zeros.var(0) / len(zeros) + ones.var(0) / len(ones)).sqrt()
    parts = weight.abs() * (gap.abs() - SURE * error).clamp_min(0).to(weight)
    return parts / parts.sum().clamp_min(1e-12)


def _apart(weight: Tensor, zeros: Tensor, ones: Tensor) -> float:
    score = torch.cat([zeros, ones]).to(weight) @ weight
    return auroc(score, (torch.arange(len(score)) >= len(zeros)).long())


@torch.no_grad()
def _features(detector: Detector, x: Tensor) -> Tensor:
    return torch.cat([detector(b).features for b in x.split(50)]).cpu()
