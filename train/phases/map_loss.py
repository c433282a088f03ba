"""Loss of tumour maps against tumour masks: cross-entropy of the cells, and Dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.tumour_map import CELL_ODDS, TumourMap

CELL_WEIGHT = 4.0  # of the cells' cross-entropy, against 1 for a scan's
DICE_WEIGHT = 0.5


def compute_map_loss(maps: Sequence[TumourMap], masks: Tensor, is_outlined: Tensor) -> Tensor:
    """Compute the mean loss of the experts' maps over a batch of B scans.

    Scans whose mask is not known count as 0; the soft Dice loss (Milletari et al. 2016) is of scans
    with a tumour alone.

    Args:
        maps: of each expert, cells (B, h, w).
        masks: (B, 1, H, W), the tumour's share of each pixel.
        is_outlined: (B,) bool.
    """
    target = F.adaptive_avg_pool2d(masks, maps[0].cells.shape[-1])[:, 0]
    weight = torch.tensor(CELL_ODDS, device=masks.device)
    has_tumour = target.amax((1, 2)) > 0
    losses = []
    for found in maps:
        cross_entropy = F.binary_cross_entropy_with_logits(
            found.cells, target, pos_weight=weight, reduction="none"
        ).mean((1, 2))
        dice = compute_dice_loss(found.cells.sigmoid(), target) * has_tumour
        losses.append(CELL_WEIGHT * cross_entropy + DICE_WEIGHT * dice)
    return (torch.stack(losses).mean(0) * is_outlined).mean()


def compute_dice_loss(found: Tensor, target: Tensor) -> Tensor:
    """Return 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), (B,), of maps (B, h, w) in [0, 1]."""
    both, either = (found * target).sum((1, 2)), (found + target).sum((1, 2))
    return 1 - (2 * both + 1) / (either + 1)
