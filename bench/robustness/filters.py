"""Classical denoisers, the purifier's peers, each with one strength."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from core.scan import from_uint8, to_uint8

Filter = Callable[[Tensor], Tensor]


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of standard deviation `sigma` pixels, mirrored at the edges."""
    radius = max(1, round(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).to(x) / sigma) ** 2)
    line = line / line.sum()
    channels = x.flatten(0, 1)[:, None]
    padded = F.pad(channels, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, line.view(1, 1, 1, -1))
    return F.conv2d(rows, line.view(1, 1, -1, 1)).view_as(x)


def median(x: Tensor, side: int) -> Tensor:
    """Take the median of the side x side neighbourhood, mirrored at the edges; `side` is odd."""
    radius = side // 2
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(4).median(-1).values


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Save each grey scan (B, 1, H, W) as JPEG of this quality and open it again."""
    decoded = []
    for levels in to_uint8(x)[:, 0]:
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, format="JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(buffer)))
    return from_uint8(np.stack(decoded))[:, None].to(x)


def bits(x: Tensor, depth: int) -> Tensor:
    """Round each pixel to 2^depth levels (Xu et al. 2018, feature squeezing)."""
    levels = 2**depth - 1
    return (x * levels).round() / levels


# Every strength that is tried on validation scans; the best one stands beside the purifier.
STRENGTHS: Mapping[str, Mapping[float, Filter]] = {
    "gaussian": {
        s: partial(gaussian, sigma=s) for s in (0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0)
    },
    "median": {s: partial(median, side=s) for s in (3, 5, 7, 9)},
    "jpeg": {q: partial(jpeg, quality=q) for q in (5, 10, 15, 20, 30, 40, 50, 60, 75, 90)},
}
