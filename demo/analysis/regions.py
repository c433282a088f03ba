"""Regions of a tumour map: the cells from a threshold on, their size and their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.diagnosis import Diagnosis
from core.maps.regions import label_regions

THRESHOLD = 0.5  # probability from which a cell counts as tumour where nobody chooses
TISSUE_LEVEL = 0.1  # mean brightness of a cell from which it belongs to the head


@dataclass(frozen=True)
class Regions:
    """Connected regions of one map at one threshold."""

    count: int
    area: int  # cells of all regions
    head_share: float  # part of the head that they cover; 0 where there is no head
    peak: float  # highest probability of the map
    place: tuple[float, float]  # centre of the largest, across and down, in [0, 1]


def find_regions(d: Diagnosis, threshold: float = THRESHOLD) -> Regions | None:
    """Find the regions of a reading's tumour map; None where the network makes no map."""
    if d.tumour_map is None:
        return None
    return list_regions(d.tumour_map[None], [threshold], d.scan)[0][0]


def list_regions(maps: Tensor, thresholds: Sequence[float], scan: Tensor) -> list[list[Regions]]:
    """Return the regions of maps (N, h, w) of a scan (1, H, W), by map and threshold."""
    head = mark_head(scan, maps.shape[-1])
    above = maps[:, None] >= torch.tensor(thresholds)[:, None, None]  # (N, T, h, w)
    labels = label_regions(above.flatten(0, 1)).unflatten(0, above.shape[:2])
    return [
        [_measure(of_threshold, float(cells.max()), head) for of_threshold in of_map]
        for cells, of_map in zip(maps, labels, strict=True)
    ]


def mark_head(scan: Tensor, side: int) -> Tensor:
    """Return the cells (side, side) of the head of a scan (1, H, W): between bright cells.

    Dark parts inside, such as fluid, lie between bright cells of their row and column.
    """
    bright = F.avg_pool2d(scan[None], scan.shape[-1] // side)[0, 0] >= TISSUE_LEVEL
    inside = torch.ones_like(bright)
    for axis in (0, 1):
        from_start = bright.cummax(axis).values
        from_end = bright.flip(axis).cummax(axis).values.flip(axis)
        inside &= from_start & from_end
    return inside


def _measure(labels: Tensor, peak: float, head: Tensor) -> Regions:
    numbers, counts = labels[labels > 0].unique(return_counts=True)
    area = int(counts.sum())
    if not area:
        return Regions(0, 0, 0.0, peak, (0.5, 0.5))
    rows, columns = (labels == numbers[counts.argmax()]).nonzero(as_tuple=True)
    height, width = labels.shape
    across = (float(columns.float().mean()) + 0.5) / width
    down = (float(rows.float().mean()) + 0.5) / height
    inside, whole = int((head & (labels > 0)).sum()), int(head.sum())
    return Regions(len(numbers), area, inside / max(whole, 1), peak, (across, down))
