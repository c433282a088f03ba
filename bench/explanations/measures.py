"""Measures of one map against one tumour mask, and the level from which a map marks a tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.components.lesions import TISSUE_LEVEL
from bench.explanations.maps import Maps

NUM_LEVELS = 100
MIN_EMPTY = 0.95  # of healthy validation scans, averaged over the sources


@dataclass(frozen=True)
class Measures:
    """Measures of N scans' maps; those against a mask are NaN where no tumour is outlined."""

    highest: Tensor  # (N,) of the cells
    inside: Tensor  # (N,) of the cells that touch the mask
    points: Tensor  # (N,) 1 where the highest pixel lies in the mask, else 0
    energy: Tensor  # (N,) share of the map's sum in the mask
    chance: Tensor  # (N,) share of the head in the mask: what an even map would have of both
    dice: Tensor  # (N, L) of the pixels above each of L levels and the mask

    @classmethod
    def join(cls, parts: Sequence[Measures]) -> Measures:
        """Join the measures of several scans."""
        names = cls.__dataclass_fields__
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def measure_map(maps: Maps, scan: Tensor, mask: Tensor | None, levels: Tensor) -> Measures:
    """Measure the map of one scan (1, H, W) against its mask (H, W) bool, None of a healthy scan.

    The head are the pixels that are not black, and the mask.
    """
    cells, pixels = maps.cells[0].double(), maps.pixels[0].double()
    highest = cells.max().reshape(1)
    if mask is None:
        nothing = torch.full((1,), torch.nan, dtype=torch.float64)
        return Measures(highest, *(nothing,) * 4, nothing.expand(1, len(levels)))
    block = mask.shape[-1] // cells.shape[-1]
    touched = mask.unfold(0, block, block).unfold(1, block, block).flatten(2).any(2)
    total = pixels.sum()
    both, marked = (_count_above(values, levels) for values in (pixels[mask], pixels.flatten()))
    dice = 2 * both / (marked + mask.sum())
    head = (scan[0] > TISSUE_LEVEL) | mask
    values = (
        cells[touched].max(),
        mask.flatten()[int(pixels.argmax())].double(),
        pixels[mask].sum() / total if total > 0 else total,
        mask.sum() / head.sum(),
    )
    return Measures(highest, *(v.double().reshape(1) for v in values), dice.double()[None])


def _count_above(values: Tensor, levels: Tensor) -> Tensor:
    """Count the values (N,) above each of rising levels (L,)."""
    below = torch.bucketize(values, levels.to(values))  # levels below each value
    return torch.bincount(below, minlength=len(levels) + 1).flip(0).cumsum(0).flip(0)[1:]


def list_levels(top: float) -> Tensor:
    """List the levels that a map's threshold is chosen from: evenly between 0 and `top`."""
    return torch.linspace(0, 1, NUM_LEVELS + 1, dtype=torch.float64)[1:-1] * top


def choose_level(dice: Tensor, empty: Tensor) -> int:
    """Choose the level of the highest Dice (L,) of those that leave healthy scans empty (L,).

    That is at least `MIN_EMPTY` of them; without such a level it is the one that leaves most.
    """
    enough = empty >= min(MIN_EMPTY, float(empty.max()))
    return int(dice.masked_fill(~enough, -1).argmax())
