"""Odd pictures, found by rules without a model: no single whole head on a black background.

The rules see a scan as 28 x 28 cells, means of 8 x 8 pixels. A cell brighter than `TISSUE` is
tissue; touching cells, corners too, are one piece; the largest piece is the head. Each rule is a
quantity and a limit, chosen by looking at what lies beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from core.maps.regions import label_regions
from core.scan import from_uint8
from core.scan.image import COLOUR_LEVELS
from train.data.dataset import batches
from train.data.sources import Record

CELL = 8  # pixels of a side
TISSUE = 0.08  # mean brightness of a cell, from which it is tissue
AT_A_TIME = 500  # scans
# kind -> (limit, its words); a picture at or beyond the limit is odd
LIMITS = {
    "small head": (0.12, "a head, brighter than black, of at most this share; dark scans too"),
    "several pieces": (0.06, "a second piece of at least this share: a head, a frame or a fringe"),
    "repeated half": (
        0.9,
        "halves, left and right or top and bottom, of at least this correlation",
    ),
    "no black border": (
        0.5,
        "tissue or grey along at least this share of each of the four borders",
    ),
    "bright border": (0.25, "a median brightness of the border of at least this"),
    "straight line": (0.9, "a line near a border, bright over at least this share of its length"),
    "colour": (0.002, "at least this share of coloured pixels in the file"),
}


def find_odd_pictures(scans: np.ndarray) -> list[tuple[str, int, float]]:
    """Return the (kind, row, quantity) of odd scans, uint8 (N, 224, 224), by kind."""
    parts = [measure_pictures(from_uint8(np.array(scans[r.start : r.stop])))
             for r in batches(len(scans), AT_A_TIME)]  # fmt: skip
    found = []
    for kind in parts[0]:
        values, limit = torch.cat([part[kind] for part in parts]), LIMITS[kind][0]
        beyond = values <= limit if kind == "small head" else values >= limit
        found += [(kind, int(i), float(values[i])) for i in torch.nonzero(beyond).flatten()]
    return found


def measure_pictures(x: Tensor) -> dict[str, Tensor]:
    """Measure the quantity of each kind but colour on scans (N, 224, 224) in [0, 1]: (N,) each."""
    cells = F.avg_pool2d(x[:, None], CELL)[:, 0]
    tissue = cells > TISSUE
    first, second = measure_pieces(tissue)
    edges = [tissue[:, 0], tissue[:, -1], tissue[:, :, 0], tissue[:, :, -1]]
    rim = [cells[:, 0], cells[:, -1], cells[:, :, 0], cells[:, :, -1]]
    return {
        "small head": first,
        "several pieces": second,
        "repeated half": torch.maximum(
            correlate(*cells.chunk(2, 1)), correlate(*cells.chunk(2, 2))
        ),
        "no black border": torch.stack([e.double().mean(1) for e in edges]).amin(0),
        "bright border": torch.cat(rim, 1).double().median(1).values,
        "straight line": measure_lines(x),
    }


def measure_pieces(tissue: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of the picture of the two largest connected pieces, (N,) float64 each.

    Args:
        tissue: bool (N, H, W); cells that touch, corners too, are connected.
    """
    cells = tissue[0].numel()
    labels = label_regions(tissue).flatten(1)
    sizes = torch.zeros(len(tissue), cells + 1).double()
    sizes.scatter_add_(1, labels, (labels > 0).double())
    top = sizes.topk(2, dim=1).values / cells
    return top[:, 0], top[:, 1]


def correlate(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation of pictures (N, H, W) with their partners, (N,) float64."""
    a, b = (t.double().flatten(1) for t in (a, b))
    a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-9)


def measure_lines(x: Tensor) -> Tensor:
    """Return the bright share of the brightest row or column in the outer tenth, (N,) float64."""
    bright = (x > 0.4).double()
    depth = x.shape[-1] // 10
    shares = [bright.mean(axis) for axis in (1, 2)]
    return torch.cat([s[:, part] for s in shares
                      for part in (slice(depth), slice(-depth, None))], 1).amax(1)  # fmt: skip


def find_coloured(root: Path, records: Sequence[Record]) -> list[tuple[str, int, float]]:
    """Return the (kind, row, share of coloured pixels) of coloured files."""
    found = []
    for row, record in enumerate(records):
        with Image.open(root / record.file) as picture:
            if picture.mode in ("1", "L"):
                continue
            channels = np.asarray(picture.convert("RGB"), dtype=np.int16)
        share = float((channels.max(-1) - channels.min(-1) > COLOUR_LEVELS).mean())
        if share >= LIMITS["colour"][0]:
            found.append(("colour", row, share))
    return found
