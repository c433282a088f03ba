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

from core.attacks import FGSM, PGD
from core.attacks.base import to_eight_bit
from core.detector import Detector, cut_off
from core.metrics import auroc
from core.pipeline import MedFedPure
from train.calibration.logistic import logistic
from train.data.dataset import map_batches
from train.device import autocast
from train.trainer import ReportFn

MOST = 0.5  # of what tells attacked scans from clean ones may come from one feature
WORTH = 0.01  # of AUROC that sharing it out may cost
SURE = 2.0  # standard errors: what lies within them is chance


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the ordinary attacks; rounds of hiding, each on so many scans, and its steps.

    Without rounds nobody hides. Steps are even: the last one is the classifier's.
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
    """Fits the fused score in place on training scans x (B, C, H, W) with labels y (B,).

    Returns:
        The largest share that one feature carries.
    """
    report(f"attacking {len(x)} training scans for the detector")
    detector, clean = system.detector, _features(system.detector, x)
    ordinary = _features(detector, _attacked(system, x, y, config))
    most = fit(detector, clean, [ordinary], config.ridge)
    count = min(config.hidden_rounds * config.hidden_scans, len(x))
    spaced = torch.linspace(0, len(x) - 1, count).round().long()
    found: list[Tensor] = []
    for now in range(config.hidden_rounds):
        few = spaced[now :: config.hidden_rounds]
        report(f"hiding {len(few)} of them from it, {now + 1} of {config.hidden_rounds} times")
        for rows in few.split(16):
            seeds = [config.seed + int(row) for row in rows]
            twins = hidden(system, x[rows], y[rows], config, seeds)
            found.append(_features(detector, twins))
        if found:
            most = fit(detector, clean, [ordinary, torch.cat(found)], config.ridge)
    if not detector.weight.any():
        report("no measurement tells attacked scans from clean ones: nothing will be flagged")
    return most


def hidden(
    system: MedFedPure, x: Tensor, y: Tensor, config: FusionConfig, seeds: Sequence[int]
) -> Tensor:
    """PGD whose steps lower the fused score and raise the classifier's loss in turn, in 8 bits.

    Scans (B, C, H, W) as a file would hold them: below a level of 8 bits nothing is to be learned.
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
    """`logistic` with the features that would count backwards left out, the worst one first."""
    kept = torch.arange(len(penalty))
    while True:
        found, offset = logistic(zeros[:, kept], ones[:, kept], penalty[kept])
        if not (found < 0).any():
            break
        kept = kept[torch.arange(len(kept)) != found.argmin()]
    weight = torch.zeros(len(penalty)).to(found)
    weight[kept] = found
    return weight, offset


def carried(weight: Tensor, zeros: Tensor, ones: Tensor) -> Tensor:
    """Each feature's share (F,) of how far above scans `zeros` the score keeps scans `ones`.

    Features (N, F) are standardised on `zeros`. A difference of means within two standard errors is
    chance, and carries nothing.
    """
    gap = ones.mean(0) - zeros.mean(0)
    error = (zeros.var(0) / len(zeros) + ones.var(0) / len(ones)).sqrt()
    parts = weight * (gap - SURE * error).clamp_min(0).to(weight)
    return parts / parts.sum().clamp_min(1e-12)


def _apart(weight: Tensor, zeros: Tensor, ones: Tensor) -> float:
    score = torch.cat([zeros, ones]).to(weight) @ weight
    return auroc(score, (torch.arange(len(score)) >= len(zeros)).long())


def _features(detector: Detector, x: Tensor) -> Tensor:
    return map_batches(lambda b: detector(b).features, x)
