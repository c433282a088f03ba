"""The head that says 'cannot judge': training scans against drawn pictures.

Head and limit are linear in what the autoencoder sees, so that the mean of several hospitals' heads
says the mean of what they say: a federation solves its head in one round.
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
from train.data.outliers import KINDS, outlier
from train.phases import mae
from train.phases.phase import Phase, SystemFn

BATCH = 50


@dataclass(frozen=True)
class NoveltyPhase:
    """Table of a preset: sizes of the training sets, and the share of clean scans refused.

    Of the scans a third come as they are, the others changed as `augment` says.
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
    """Fits heads on a trained autoencoder's tokens, and tells what they do on validation scans."""

    def __init__(
        self, mae: MaskedAutoencoder, val: ScanDataset, config: NoveltyPhase, device: torch.device
    ) -> None:
        self.mae, self.val, self.config, self.device = mae, val, config, device

    @torch.no_grad()
    def solve(self, head: Novelty, train: ScanDataset, seed: int) -> float:
        """Fits a head in place to scans and to drawings of which some are made of those scans.

        The limit is where a normal distribution of the validation scans' scores has the share
        `refused` above it: there are too few of them for that quantile itself.

        Returns:
            The mean cross-entropy, scans and drawings weighing the same.
        """
        known, drawn = self._scans(train, seed), self._drawn(train, self.config.outliers, [seed, 0])
        centre, spread = known.mean(0), known.std(0).clamp_min(1e-6)
        with torch.enable_grad():
            weight, offset = fit_logistic(
                (known - centre) / spread, (drawn - centre) / spread, self.config.ridge
            )
        folded = weight / spread
        head.weight.copy_(folded / LOG_ODDS_UNIT)
        head.offset.copy_((offset - centre.double() @ folded) / LOG_ODDS_UNIT)
        clean = self._clean(head)
        above = NormalDist().inv_cdf(1 - self.config.refused)
        head.cut.copy_((clean.mean() + above * clean.std(correction=0)) / LOG_ODDS_UNIT)
        return float(softplus(head.score(known)).mean() + softplus(-head.score(drawn)).mean()) / 2

    @torch.no_grad()
    def validate(self, head: Novelty) -> dict[str, float]:
        """Shares refused, of validation scans and of new drawings of each kind.

        'score' is the mean of what is right: drawings refused, scans judged.
        """
        clean = float((self._clean(head) > head.limit).double().mean())
        found = (head.score(self._strange) > head.limit).double().cpu()
        figures = {"val_refused": clean, "score": (float(found.mean()) + 1 - clean) / 2}
        for k, kind in enumerate(KINDS):
            figures[f"refused_{kind}"] = float(found[k :: len(KINDS)].mean())
        return figures

    def _clean(self, head: Novelty) -> Tensor:
        """Scores of the validation scans."""
        return head.score(self._known)

    @cached_property
    def _known(self) -> Tensor:
        """Features of the validation scans."""
        x, _ = self.val.all(self.device)
        return torch.cat([Novelty.features(self.mae.encode(b)) for b in x.split(BATCH)])

    @cached_property
    def _strange(self) -> Tensor:
        """Features of drawings that no head learns from."""
        return self._drawn(self.val, min(40 * len(KINDS), self.config.outliers), [0, 1])

    def _scans(self, train: ScanDataset, seed: int) -> Tensor:
        """Features (scans, F) of training scans, most of them changed."""
        generator, count = torch.Generator().manual_seed(seed), self.config.scans
        index = torch.multinomial(train.weights, count, replacement=True, generator=generator)
        parts = []
        for rows in batches(count, BATCH):
            x, _ = train.batch(index[[*rows]], self.device)
            if rows.start >= count // 3:
                x = (augment(x, self.config.augment, generator) * 255).round() / 255
            parts.append(Novelty.features(self.mae.encode(x)))
        return torch.cat(parts)

    def _drawn(self, data: ScanDataset, count: int, seeds: list[int]) -> Tensor:
        """Features (count, F) of drawn pictures, the kinds in turn."""
        rng = np.random.default_rng(seeds)
        scans, kinds, parts = data.scans.reshape(-1, SIZE, SIZE), [*KINDS], []
        for rows in batches(count, BATCH):
            pictures = np.stack([outlier(rng, scans, kinds[i % len(kinds)]) for i in rows])
            x = torch.from_numpy(pictures)[:, None].to(self.device).float() / 255
            parts.append(Novelty.features(self.mae.encode(x)))
        return torch.cat(parts)


def _solver(
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
    solver=_solver,
    needs_brain_scans=True,
)
