"""Out-of-distribution head ('cannot judge'), fitted to scans against random pictures.

Head and limit are linear in the autoencoder's features, so the mean of several hospitals' heads has
the mean of their scores: a federation solves its head in one round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from core.mae import MaskedAutoencoder
from core.novelty import LOG_ODDS_UNIT, Novelty
from core.scan import SIZE
from train.calibration.logistic import fit_logistic
from train.data.augment import AugmentConfig, augment
from train.data.dataset import ScanDataset, batches
from train.data.outliers import KINDS, draw_outlier
from train.phases import mae
from train.phases.phase import Phase, SystemFn

BATCH_SIZE = 50


@dataclass(frozen=True)
class NoveltyPhase:
    """Table of a preset: sizes of the training sets, and the share of clean scans refused.

    A third of the scans stay unchanged, the others are augmented.
    """

    scans: int = 4500
    outliers: int = 4500
    refused: float = 0.005
    ridge: float = 1e-3
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(scale=0.2, noise=0.03, upend=0.5)
    )

    def __post_init__(self) -> None:
        if min(self.scans, self.outliers) < 2 * len(KINDS):
            raise ValueError(f"scans and outliers must be {2 * len(KINDS)} or more, got {self}")
        if not 0 < self.refused < 1 or not self.ridge > 0:
            raise ValueError(f"refused must be in (0, 1) and ridge positive, got {self}")


class Solver:
    """Closed-form solver of the head on a trained autoencoder's tokens."""

    def __init__(
        self, mae: MaskedAutoencoder, val: ScanDataset, config: NoveltyPhase, device: torch.device
    ) -> None:
        self.mae, self.val, self.config, self.device = mae, val, config, device

    @torch.no_grad()
    def solve(self, head: Novelty, train: ScanDataset, seed: int) -> float:
        """Fit a head in place to scans and to outliers, some of which are made from those scans.

        The limit is the quantile 1 - `refused` of a normal distribution fitted to the validation
        scans' scores, which are too few for an empirical quantile.

        Returns:
            The mean cross-entropy; scans and outliers weigh the same.
        """
        inliers = self._encode_scans(train, seed)
        outliers = self._encode_outliers(train, self.config.outliers, [seed, 0])
        centre, spread = inliers.mean(0), inliers.std(0).clamp_min(1e-6)
        with torch.enable_grad():
            weight, offset = fit_logistic(
                (inliers - centre) / spread, (outliers - centre) / spread, self.config.ridge
            )
        folded = weight / spread
        head.weight.copy_(folded / LOG_ODDS_UNIT)
        head.offset.copy_((offset - centre.double() @ folded) / LOG_ODDS_UNIT)
        clean = self._score_clean(head)
        above = NormalDist().inv_cdf(1 - self.config.refused)
        head.cut.copy_((clean.mean() + above * clean.std(correction=0)) / LOG_ODDS_UNIT)
        inlier_loss = softplus(head.score(inliers)).mean()
        return float(inlier_loss + softplus(-head.score(outliers)).mean()) / 2

    @torch.no_grad()
    def validate(self, head: Novelty) -> dict[str, float]:
        """Return the shares refused, of validation scans and of new outliers of each kind.

        'score' is the mean of the shares of outliers refused and of scans not refused.
        """
        clean = float((self._score_clean(head) > head.limit).double().mean())
        found = (head.score(self._unseen_outlier_features) > head.limit).double().cpu()
        figures = {"val_refused": clean, "score": (float(found.mean()) + 1 - clean) / 2}
        for k, kind in enumerate(KINDS):
            figures[f"refused_{kind}"] = float(found[k :: len(KINDS)].mean())
        return figures

    def _score_clean(self, head: Novelty) -> Tensor:
        """Score the validation scans."""
        return head.score(self._clean_features)

    @cached_property
    def _clean_features(self) -> Tensor:
        """Features of the validation scans."""
        x, _ = self.val.all(self.device)
        return torch.cat([Novelty.features(self.mae.encode(b)) for b in x.split(BATCH_SIZE)])

    @cached_property
    def _unseen_outlier_features(self) -> Tensor:
        """Features of outliers that are not used for fitting."""
        return self._encode_outliers(self.val, min(40 * len(KINDS), self.config.outliers), [0, 1])

    def _encode_scans(self, train: ScanDataset, seed: int) -> Tensor:
        """Return features (scans, F) of training scans, two thirds of them augmented."""
        generator, count = torch.Generator().manual_seed(seed), self.config.scans
        index = torch.multinomial(train.weights, count, replacement=True, generator=generator)
        parts = []
        for rows in batches(count, BATCH_SIZE):
            x, _ = train.batch(index[[*rows]], self.device)
            if rows.start >= count // 3:
                x = (augment(x, self.config.augment, generator) * 255).round() / 255
            parts.append(Novelty.features(self.mae.encode(x)))
        return torch.cat(parts)

    def _encode_outliers(self, data: ScanDataset, count: int, seeds: list[int]) -> Tensor:
        """Return features (count, F) of random pictures, the kinds in turn."""
        rng = np.random.default_rng(seeds)
        scans, kinds, parts = data.scans.reshape(-1, SIZE, SIZE), [*KINDS], []
        for rows in batches(count, BATCH_SIZE):
            pictures = np.stack([draw_outlier(rng, scans, kinds[i % len(kinds)]) for i in rows])
            x = torch.from_numpy(pictures)[:, None].to(self.device).float() / 255
            parts.append(Novelty.features(self.mae.encode(x)))
        return torch.cat(parts)


def _build_solver(
    settings: NoveltyPhase, val: ScanDataset, device: torch.device, system: SystemFn
) -> Solver:
    return Solver(system((mae.PHASE.file,)).detector.mae, val, settings, device)


PHASE = Phase(
    name="novelty",
    file="novelty.safetensors",
    help="the out-of-distribution head ('cannot judge'); needs the autoencoder",
    config=NoveltyPhase,
    shape=lambda preset: preset.system.mae.embed_dim,
    network=Novelty,
    solver=_build_solver,
    needs_brain_scans=True,
)
