"""Outlined tumours: their contrast to what lies around them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

RING = 8  # pixels around the lesion that it is compared with
MARGIN = 3  # pixels around an outline or a mark that are removed with it
TISSUE_LEVEL = 0.08  # pixels below this are background
MIN_CONTRAST = 0.05  # fainter lesions are left out: the ratio would divide by almost nothing


def measure_contrast(x: Tensor, mask: Tensor) -> float:
    """Returns the mean of the lesion minus the mean of the ring around it; x (1, H, W)."""
    ring = widen(mask, RING) & ~mask
    if not ring.any():
        raise ValueError("the lesion fills the scan: nothing to compare it with")
    return float(x[0][mask].mean() - x[0][ring].mean())


def widen(mask: Tensor, pixels: int = MARGIN) -> Tensor:
    """Returns the mask (H, W) bool with a margin of so many pixels."""
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0
