"""Size of a tumour: area of its mask as a share of the head, in three fixed bins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.components.lesions import TISSUE_LEVEL
from train.data.dataset import ScanDataset
from train.data.masks import draw_mask, find_outlines

SIZES = ("small", "medium", "large")
LIMITS = (0.02, 0.06)  # shares of the head: about thirds of the training tumours of `patients`


def measure_sizes(fold: ScanDataset, data: str | Path) -> dict[int, float]:
    """Return the sizes of the outlined tumours by row of the fold.

    Raises:
        DataError: a mask or an outline in the data folder is damaged, or its picture is missing.
    """
    outlines = find_outlines(data, set(fold.sources))
    return {
        row: measure_share(fold.scans[row], draw_mask(outlines[entry.file], data, entry.file))
        for row, entry in enumerate(fold.entries)
        if entry.file in outlines
    }


def measure_share(scan: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a scan's head, the pixels that are not black, in a mask (224, 224) bool.

    The mask belongs to the head, however dark it is; `scan` is uint8 of the same shape.
    """
    head = (scan > TISSUE_LEVEL * 255) | mask
    return float(mask.sum() / head.sum())


def name_size(share: float) -> str:
    """Return the bin of a share; a limit belongs to the bin above it."""
    return SIZES[int(torch.bucketize(share, torch.tensor(LIMITS, dtype=torch.float64), right=True))]
