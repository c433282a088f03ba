"""Fitting of the head that says 'cannot judge': training scans against drawn pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from core.mae import MaskedAutoencoder
from core.metrics import wilson_interval
from core.novelty import Novelty
from core.scan import SIZE
from train.augment import AugmentConfig, augment
from train.fold import Data, batches
from train.logistic import logistic
from train.outliers import KINDS, outlier
from train.task import ReportFn


@dataclass(frozen=True)
class NoveltyPhase:
    """How many pictures the head learns from, and the most clean scans that it may refuse.

    Of the scans a third come as they are, the others changed as `augment` says.
    """

    scans: int = 4500
    outliers: int = 4500
    refused: float = 0.01
    ridge: float = 1e-4
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(scale=0.2, noise=0.03, upend=0.5)
    )

    def __post_init__(self) -> None:
        if min(self.scans, self.outliers) < 2 * len(KINDS):
            raise ValueError(f"scans and outliers must be {2 * len(KINDS)} or more, got {self}")
        if not 0 < self.refused < 1 or not self.ridge > 0:
            raise ValueError(f"refused must be in (0, 1) and ridge positive, got {self}")


@torch.no_grad()
def fit_novelty(
    mae: MaskedAutoencoder,
    train: Data,
    val: Data,
    config: NoveltyPhase,
    *,
    seed: int,
    device: torch.device,
    report: ReportFn = print,
) -> tuple[Novelty, dict[str, float]]:
    """The head for a trained autoencoder, and how it does on validation scans and new drawings.

    As many validation scans lie above the limit as still let 95 % intervals (Wilson 1927) of the
    share refused end below `refused`; none, where there are too few scans to tell.
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.multinomial(train.weights, config.scans, replacement=True, generator=generator)
    parts = []
    for rows in batches(len(index), 50):
        x, _ = train.batch(index[[*rows]], device)
        if rows.start >= config.scans // 3:
            x = (augment(x, config.augment, generator) * 255).round() / 255
        parts.append(Novelty.features(mae.encode(x)))
    known = torch.cat(parts)
    report(f"drawing {config.outliers} pictures that are no brain MRI")
    drawn = _drawn(mae, train, config.outliers, seed, device)
    head = Novelty(mae.config.embed_dim).to(device)
    head.centre.copy_(known.mean(0))
    head.spread.copy_(known.std(0).clamp_min(1e-6))
    with torch.enable_grad():
        weight, offset = logistic(
            (known - head.centre) / head.spread, (drawn - head.centre) / head.spread, config.ridge
        )
    head.weight.copy_(weight)
    head.offset.copy_(offset)
    x, _ = val.all(device)
    clean = torch.cat([head(mae.encode(b)) for b in x.split(50)]).sort(descending=True).values
    count = sum(wilson_interval(k, len(val))[1] <= config.refused for k in range(1, len(val)))
    head.limit.copy_(clean[count])
    figures = {"val_refused": float((clean > head.limit).double().mean())}
    strange = head.score(_drawn(mae, val, 40 * len(KINDS), seed + 1, device))
    found = (strange > head.limit).double().cpu()
    for k, kind in enumerate(KINDS):
        figures[f"refused_{kind}"] = float(found[k :: len(KINDS)].mean())
    figures["score"] = float(found.mean())
    return head, figures


def _drawn(
    mae: MaskedAutoencoder, data: Data, count: int, seed: int, device: torch.device
) -> Tensor:
    """Features (count, F) of drawn pictures, the kinds in turn."""
    rng = np.random.default_rng([seed, count])
    scans, kinds, parts = data.scans.reshape(-1, SIZE, SIZE), [*KINDS], []
    for rows in batches(count, 50):
        pictures = np.stack([outlier(rng, scans, kinds[i % len(kinds)]) for i in rows])
        x = torch.from_numpy(pictures)[:, None].to(device).float() / 255
        parts.append(Novelty.features(mae.encode(x)))
    return torch.cat(parts)
