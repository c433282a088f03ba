"""Tumour map: where an expert sees a tumour, cell by cell; its answer is pooled from the cells.

An answer that is pooled from a map cannot disagree with it (Pinheiro and Collobert 2015). What the
global features add is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 4  # pixels of the scan along one side of a cell
CELL_ODDS = 4.0  # in training a cell with a tumour counts as often as so many others
FINER = 2  # cells along one side of a place of the feature maps that they are made of
SHARPNESS = 4.0  # r of the pooling: towards 0 it is the mean, towards infinity the maximum
FIRST_LOGIT = -2.0  # of an untrained map: most cells hold no tumour
# of an untrained head: a pooled map of healthy scans is about -3, of those with a tumour 0 to 2
FIRST_SCALE, FIRST_SHIFT = 2.0, 3.0
MAX_OVERALL = 3.0  # of the log-odds that global features can add or take off


class TumourMap(NamedTuple):
    """Map of B scans, and the two parts whose sum is the answer, in log-odds of a tumour."""

    cells: Tensor  # (B, h, w) log-odds of a tumour in a cell, plus log CELL_ODDS
    local: Tensor  # (B,) pooled from the cells
    overall: Tensor  # (B,) of the global features

    @property
    def probability(self) -> Tensor:
        """Probability of a tumour in each cell, (B, h, w)."""
        return (self.cells - math.log(CELL_ODDS)).sigmoid()


class TumourMapHead(nn.Module):
    """Tumour map from the maps of several stages of a backbone, and the log-odds pooled from it.

    log-odds = a LSE_r(cells) + b + G tanh(g / G), where LSE_r(c) = (1 / r) log mean exp(r c), g is
    the log-odds of the global features, and G is MAX_OVERALL.
    """

    def __init__(self, channels: Sequence[int], width: int, cells: int) -> None:
        super().__init__()
        self.places = cells // FINER
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, FINER**2, 1)
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))
        self.shift = nn.Parameter(torch.tensor(FIRST_SHIFT))
        nn.init.constant_(self.out.bias, FIRST_LOGIT)  # type: ignore[arg-type]

    def forward(self, stages: Sequence[Tensor], overall: Tensor) -> TumourMap:
        """Return the tumour map of stages (B, C_i, h_i, w_i) and global log-odds (B,)."""
        maps = [
            enlarge(lateral(x), self.places)
            for lateral, x in zip(self.laterals, stages, strict=True)
        ]
        mixed = F.relu(self.mix(F.relu(torch.stack(maps).sum(0))))
        cells = F.pixel_shuffle(self.out(mixed).float(), FINER)[:, 0]
        local = self.scale * pool_cells(cells) + self.shift
        return TumourMap(cells, local, MAX_OVERALL * torch.tanh(overall.float() / MAX_OVERALL))


def enlarge(x: Tensor, side: int) -> Tensor:
    """Return square maps (B, C, n, n) interpolated bilinearly to (B, C, side, side), side >= n.

    As a product with one matrix for each axis: on a CPU the gradient of `F.interpolate` takes an
    eighth of a training step.
    """
    n = x.shape[-1]
    if n == side:
        return x
    unit = torch.eye(n, device=x.device)[:, None]
    matrix = F.interpolate(unit, side, mode="linear")[:, 0].T.to(x.dtype)
    return matrix @ x @ matrix.T


def pool_cells(cells: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """Return (1 / r) log mean exp(r c) of cells (B, h, w): between their mean and maximum, (B,)."""
    flat = cells.flatten(1)
    return (torch.logsumexp(sharpness * flat, 1) - math.log(flat.shape[1])) / sharpness
