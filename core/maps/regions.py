"""Connected regions of maps of cells; cells that touch, corners too, are connected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def label_regions(inside: Tensor) -> Tensor:
    """Return maps (N, h, w) in which each region of bool maps has one number; 0: none.

    The number is that of the region's last cell, from 1. A cell takes the highest number near it,
    and so does the cell whose number it had (FastSV, Zhang et al. 2020), so that few steps are
    enough.
    """
    height, width = inside.shape[1:]
    numbers = torch.arange(1, height * width + 1, device=inside.device).view(height, width)
    given = F.pad((numbers * inside).flatten(1), (1, 0))  # by number; 0 leads to 0
    while True:
        further = given.gather(1, given)[:, 1:].view_as(inside)
        near = F.pad((_spread(further) * inside).flatten(1), (1, 0))
        higher = given.scatter_reduce(1, given, near, "amax").maximum(near)
        if torch.equal(higher, given):
            return given[:, 1:].view_as(inside)
        given = higher


def _spread(numbers: Tensor) -> Tensor:
    """Return the highest of each cell's number (N, h, w) and its eight neighbours'."""
    for axis in (1, 2):
        count = numbers.shape[axis] - 1
        wide = numbers.clone()
        for to, start in ((1, 0), (0, 1)):
            part = wide.narrow(axis, to, count)
            part.copy_(part.maximum(numbers.narrow(axis, start, count)))
        numbers = wide
    return numbers
