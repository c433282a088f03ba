"""Detector of adversarial examples: the paper's reconstruction error (Eq. 22) and a fused score.

Reconstruction error depends more on how complex a scan is than on a perturbation. The fused score
is a logistic regression on the measurements of `features.py`, fitted on clean training scans and
adversarial examples of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from core.diffusion import Diffusion
from core.features import FEATURES, Measurements, Parts
from core.mae import MaskedAutoencoder, patch_mean
from core.steganalysis import ResidualNet

SCORES = ("paper", "fused")
THRESHOLDS = ("calibrated", "rank")
NUM_QUANTILES = 11  # minimum, nine deciles, maximum


@dataclass(frozen=True)
class DetectorConfig:
    """Deciding score and threshold rule.

    `threshold` is `calibrated` (`false_alarms` of the clean validation scans lie above tau) or
    `rank`: the paper's share `kappa` of scans is flagged (.18 on Br35H, .05 on CIFAR-10), which for
    a single scan means the top kappa of the clean validation scores. Both shares have their effect
    when the detector is calibrated; the rule and the score can be changed afterwards.
    """

    score: str = "fused"
    threshold: str = "calibrated"
    kappa: float = 0.18
    false_alarms: float = 0.05

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {self.score!r}")
        if self.threshold not in THRESHOLDS:
            raise ValueError(
                f"threshold must be one of {', '.join(THRESHOLDS)}, got {self.threshold!r}"
            )
        if not 0 < self.kappa < 1 or not 0 < self.false_alarms < 1:
            raise ValueError(f"kappa and false_alarms must be in (0, 1), got {self}")


class Detection(NamedTuple):
    """Output of the detector for B scans."""

    error: Tensor  # (B, C, H, W) squared reconstruction error per pixel, shown as a heat map
    features: Tensor  # (B, F) raw features, in the order of FEATURES
    parts: Parts  # that the features are made of
    scores: dict[str, Tensor]  # name -> (B,)


class Detector(nn.Module):
    """Detector: scores of scans, compared with those of clean validation scans.

    It owns the autoencoder and the steganalysis network; diffusion model and classifiers are only
    referred to, for the measurements.

    Validation scans leave two thresholds, a span and `NUM_QUANTILES` rounded quantiles a score: all
    their scores would tell whoever has the weights which scans they were
    (`train.calibration.thresholds` stores them).
    """

    clean_mean: Tensor
    clean_std: Tensor
    centre: Tensor
    spread: Tensor
    weight: Tensor
    offset: Tensor
    thresholds: Tensor
    span: Tensor
    quantiles: Tensor

    def __init__(
        self,
        config: DetectorConfig,
        mae: MaskedAutoencoder,
        residual_net: ResidualNet,
        noise_pred: nn.Module,
        diffusion: Diffusion,
        trained: Callable[[Tensor], Tensor],
        plain: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.config = config
        self.mae = mae
        self.residual_net = residual_net
        self._measurements = Measurements(noise_pred, diffusion, trained, plain, residual_net)
        grid, f = mae.config.grid, len(FEATURES)
        self.register_buffer("clean_mean", torch.zeros(grid, grid))  # of log band energy, per patch
        self.register_buffer("clean_std", torch.ones(grid, grid))
        self.register_buffer("centre", torch.zeros(f))
        self.register_buffer("spread", torch.ones(f))
        self.register_buffer("weight", torch.full((f,), 1.0 / f))
        self.register_buffer("offset", torch.zeros(()))
        rows, points = len(SCORES), torch.linspace(0, 1, NUM_QUANTILES)
        taus = torch.tensor([1 - config.false_alarms, 1 - config.kappa])
        self.register_buffer("thresholds", taus.repeat(rows, 1))  # by rule, per score
        self.register_buffer("span", torch.ones(rows))  # tau to t_max, per score
        self.register_buffer("quantiles", points.repeat(rows, 1))  # of clean scores, rounded

    def forward(self, x: Tensor) -> Detection:
        """Return the scores of scans (B, C, H, W) in [0, 1]."""
        residual = x - self.mae.reconstruct(x)
        error = residual.square()
        features, parts = self.measure(x, residual)
        paper = patch_mean(error, self.mae.config.patch_size).mean((1, 2)) * self._patch_dim
        fused = clip_features((features - self.centre) / self.spread) @ self.weight + self.offset
        return Detection(error, features, parts, {"paper": paper, "fused": fused})

    def explain(self, features: Tensor) -> Tensor:
        """Return each feature's contribution (B, F) to the fused score, in points.

        `centre` is the mean of clean training scans, so that `offset` is the score of a scan whose
        features are their means; the contributions and the offset add up to the score. Features
        of weight 0, left out by the fit, contribute 0.
        """
        return clip_features((features - self.centre) / self.spread) * self.weight

    def locate(self, parts: Parts) -> Tensor:
        """Return each feature's evidence in each patch, (B, F, H / p, W / p), in points.

        Like a contribution it is weight * clip(standard deviations above usual), those of the patch
        (see `Measurements.locate`); a contribution is not the mean of its map.
        """
        patch_size = self.mae.config.patch_size
        deviation = self._measurements.locate(parts, self.centre, self.spread, patch_size)
        return clip_features(deviation) * self.weight[:, None, None]

    def measure(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Parts]:
        """Measure all features (B, F) of scans and their reconstruction residual, with parts."""
        return self._measurements(
            x, residual, self.clean_mean, self.clean_std, self.mae.config.patch_size
        )

    @property
    def _patch_dim(self) -> int:
        return self.mae.config.in_chans * self.mae.config.patch_size**2

    def tau(self, score: str | None = None) -> float:
        """Return the threshold of a score (default: the deciding one) by the configured rule.

        `calibrated` is a conformal quantile (Vovk et al. 2005): a clean scan exchangeable with the
        n validation scans exceeds it with a probability of at most `false_alarms`, if n + 1 >= 1 /
        false_alarms. Near-duplicates weaken the bound: they count as one scan. For a single scan
        `rank` uses the share kappa in place of `false_alarms`.
        """
        rule = THRESHOLDS.index(self.config.threshold)
        return float(self.thresholds[self._find_row(score), rule])

    def with_tau(self, tau: float) -> Detector:
        """Return the detector with another threshold of the deciding score, weights shared."""
        other = copy.copy(self)
        other._buffers = {**self._buffers, "thresholds": self.thresholds.clone()}
        row, rule = self._find_row(None), THRESHOLDS.index(self.config.threshold)
        other.thresholds[row, rule] = tau
        return other

    def flag_by_rank(self, scores: Tensor) -> Tensor:
        """Flag the top kappa share of a batch (B,), ties by position: the paper's rule."""
        # .29 * 100 is 28.999... in floating point
        count = int(self.config.kappa * len(scores) + 1e-9)
        flags = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        flags[scores.argsort(descending=True, stable=True)[:count]] = True
        return flags

    def confidence(self, scores: Tensor, score: str | None = None) -> Tensor:
        """Return the share of clean validation scans that score lower, for scores (B,).

        Interpolated between the rounded quantiles and the thresholds: right to about a tenth.
        """
        c, (known, shares) = self.config, self.clean_distribution(score)
        known = np.append(known, self.thresholds[self._find_row(score)].cpu())
        shares = np.append(shares, [1 - c.false_alarms, 1 - c.kappa])
        found = np.interp(scores.detach().cpu(), np.sort(known), np.sort(shares))
        return torch.as_tensor(found).to(scores)

    def clean_distribution(self, score: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return rounded scores (U,), ascending, and the shares (U,) of clean scans below them.

        A score that several quantiles were rounded to stands for the middle of their shares.
        """
        quantiles = self.quantiles[self._find_row(score)].cpu().numpy()
        values, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
        shares = (first + (counts - 1) / 2) / (NUM_QUANTILES - 1)
        shares[0], shares[-1] = 0, 1
        return values, shares

    def span_of(self, score: str | None = None) -> float:
        """Return the distance above tau at which purification is deepest."""
        return float(self.span[self._find_row(score)])

    def _find_row(self, score: str | None) -> int:
        name = score or self.config.score
        if name not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {name!r}")
        return SCORES.index(name)


def find_threshold(clean: Tensor, share: float) -> float:
    """Return the threshold that a share of clean scores (N,) may exceed: a conformal quantile.

    It is the ceil((N + 1) (1 - share))-th of the scores.
    """
    ordered, n = clean.double().sort().values, len(clean)
    return float(ordered[min(math.ceil((n + 1) * (1 - share) - 1e-9), n) - 1])


def clip_features(standardised: Tensor) -> Tensor:
    """Clip standardised features (B, F) to [-8, 8], so that none dominates the score.

    The backward pass is the identity, so that attacks get a gradient beyond the limits too.
    """
    return standardised + (standardised.clamp(-8, 8) - standardised).detach()
