"""Outlined tumours: their contrast, and what the purifier leaves of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.parallel import progress
from core.attacks import paper_attack
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

RING = 8  # pixels around the lesion that it is compared with
MARGIN = 3  # pixels around an outline or a mark that are removed with it
TISSUE_LEVEL = 0.08  # pixels below this are background
MIN_CONTRAST = 0.05  # fainter lesions are left out: the ratio would divide by almost nothing
QUANTILES = (0.1, 0.5)
ATTACK = paper_attack(eight_bit=True)


def measure_contrast(x: Tensor, mask: Tensor) -> float:
    """Returns the mean of the lesion minus the mean of the ring around it; x (1, H, W)."""
    ring = widen(mask, RING) & ~mask
    if not ring.any():
        raise ValueError("the lesion fills the scan: nothing to compare it with")
    return float(x[0][mask].mean() - x[0][ring].mean())


def widen(mask: Tensor, pixels: int = MARGIN) -> Tensor:
    """Returns the mask (H, W) bool with a margin of so many pixels."""
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


@torch.no_grad()
def measure_lesions(
    pipeline: MedFedPure, test: ScanDataset, masks: dict[int, Tensor]
) -> dict[str, Any]:
    """Returns the contrast that clean tumours keep, and the perturbation energy removed.

    Each scan at the depth of its own adversarial example (A0, 8 bits, on the trained mixture) if
    that is flagged, the same noise for both. Of the perturbation d the share
    1 - |P(x + d) - P(x)|^2 / |d|^2 is gone. The identity keeps all and removes nothing.
    """
    kept, gone, depths, passed = [], [], [], 0
    for row, mask in progress(list(masks.items()), "lesions"):
        x, y, seeds = test.pick([row]).batches(1, pipeline.device)[0]
        before = measure_contrast(x[0].cpu(), mask)
        if abs(before) < MIN_CONTRAST:
            continue
        x_adv = ATTACK(pipeline.classifier_logits, x, y, seeds)
        score = pipeline.score(pipeline.detect(x_adv))
        if float(score) <= pipeline.tau:
            passed += 1
            continue
        t_star = pipeline.t_star(score, "paper")
        pure, attacked = (pipeline.purify(z, t_star, seeds) for z in (x, x_adv))
        kept.append(measure_contrast(pure[0].cpu(), mask) / before)
        gone.append(1 - _energy(attacked - pure) / _energy(x_adv - x))
        depths.append(int(t_star))
    if not kept:
        return {"n": 0, "not_flagged": passed}
    return {
        "n": len(kept),
        "not_flagged": passed,
        "contrast_kept": _quantiles(kept),
        "energy_removed": _quantiles(gone),
        "t_star": _quantiles(depths),
    }


def _energy(delta: Tensor) -> float:
    return float(delta.double().square().sum())


def _quantiles(values: list[float] | list[int]) -> dict[str, float]:
    points = torch.tensor(QUANTILES, dtype=torch.float64)
    low, middle = torch.quantile(torch.tensor(values, dtype=torch.float64), points).tolist()
    return {"tenth": low, "median": middle}
