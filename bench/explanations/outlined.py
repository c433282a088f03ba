"""Scans whose tumour is known pixel by pixel: outlined ones, and healthy ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.summaries import group_rows
from bench.unseen.figures import Facts
from bench.unseen.sizes import measure_share
from core.scan import from_uint8
from train.data.dataset import ScanDataset, space_evenly
from train.data.masks import load_masks


@dataclass(frozen=True)
class Outlined:
    """N scans, with the masks of those that show a tumour; the rest are healthy."""

    fold: ScanDataset
    masks: dict[int, Tensor]  # by row, bool (H, W)

    @cached_property
    def facts(self) -> Facts:
        """Labels and groupings of the scans."""
        sizes = {r: measure_share(self.fold.scans[r], m.numpy()) for r, m in self.masks.items()}
        return Facts.of(self.fold, sizes)

    @cached_property
    def scans(self) -> Tensor:
        """Scans (N, 1, H, W) in [0, 1] on the CPU."""
        return from_uint8(self.fold.scans)[:, None]

    def pick(self, rows: list[int]) -> Outlined:
        """Return the scans of these rows, with their masks."""
        masks = {i: self.masks[row] for i, row in enumerate(rows) if row in self.masks}
        return Outlined(self.fold.pick(rows), masks)

    def thin_by_source(self, limit: int) -> Outlined:
        """Return at most `limit` evenly spaced scans of each source."""
        parts = group_rows(self.fold.sources).values()
        rows = [part[i] for part in parts for i in space_evenly(len(part), limit)]
        return self.pick(sorted(rows))

    def stack_masks(self, start: int, count: int) -> Tensor:
        """Return masks (count, H, W) bool from row `start` on, empty of healthy scans."""
        empty = torch.zeros(self.fold.scans.shape[-2:], dtype=torch.bool)
        return torch.stack([self.masks.get(start + i, empty) for i in range(count)])


def collect_outlined(fold: ScanDataset, data: str | Path) -> Outlined:
    """Collect a fold's healthy scans and outlined tumours; tumours without a mask are left out.

    Raises:
        DataError: a mask is damaged.
    """
    masks = load_masks(fold, data)
    rows = [row for row, y in enumerate(fold.labels.tolist()) if not y or row in masks]
    return Outlined(fold, masks).pick(rows)
