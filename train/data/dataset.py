"""One fold's scans with their labels, weights and seeds, and batches of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.scan import from_uint8
from train.data.split import Entry, Manifest


class Batch(NamedTuple):
    """Batch of B scans on the device."""

    x: Tensor  # (B, C, H, W) in [0, 1]
    y: Tensor  # (B,)
    seeds: list[int]


class Sample(NamedTuple):
    """B scans to train on, on the device; the last two are None where no masks are known."""

    x: Tensor  # (B, C, H, W) in [0, 1]
    y: Tensor  # (B,)
    masks: Tensor | None = None  # (B, 1, 112, 112) the tumour's share of each cell
    is_outlined: Tensor | None = None  # (B,) bool: the mask is known; it is of healthy scans


@dataclass(frozen=True)
class ScanDataset:
    """Scans of one fold with labels; uint8 until a batch is drawn.

    Scans of a manifest also have its entries; the seed of each is its position in the manifest.
    Brain scans for training have tumour masks where the data folder holds them.
    """

    scans: np.ndarray  # (N, H, W) or (N, C, H, W) uint8
    labels: Tensor  # (N,) int64; of brain scans 1 is 'tumour'
    cells: Sequence[str]  # (N,) 'source/label': cells share the weight equally
    groups: Sequence[int]  # (N,) near-duplicates share a number
    seeds: Sequence[int] = ()  # (N,), or none
    entries: Sequence[Entry] = ()  # (N,), or none
    manifest: Manifest | None = None
    masks: np.ndarray | None = None  # (N, 112, 112) uint8: 255 times the tumour's share of a cell
    is_outlined: np.ndarray | None = None  # (N,) bool: the mask is known; it is of healthy scans

    @cached_property
    def weights(self) -> Tensor:
        """Weight of each scan in training, (N,) float64: see `compute_weights`."""
        return compute_weights(self.cells, self.groups)

    @property
    def sources(self) -> list[str]:
        """Source of each scan."""
        return [cell.rsplit("/", 1)[0] for cell in self.cells]

    @property
    def subtypes(self) -> list[str]:
        """Kind of tumour, or 'no tumour', of each scan of a manifest."""
        return [entry.record.subtype for entry in self.entries]

    def thin(self, limit: int | None, *, truncate: bool = False) -> ScanDataset:
        """Return at most `limit` scans: `space_evenly`; classes and sources keep their shares.

        Raises:
            ValueError: the limit is below 1.
        """
        if limit is None or limit >= len(self):
            return self  # a copy would hold all scans twice
        return self.pick(space_evenly(len(self), limit, truncate=truncate))

    def pick(self, rows: Sequence[int]) -> ScanDataset:
        """Return the scans of these rows, with weights of their own."""
        index = list(rows)
        cells, groups = [self.cells[i] for i in index], [self.groups[i] for i in index]
        seeds = tuple(self.seeds[i] for i in index) if self.seeds else ()
        entries = tuple(self.entries[i] for i in index) if self.entries else ()
        scans, labels = self.scans[index], self.labels[index]
        masks = None if self.masks is None else self.masks[index]
        known = None if self.is_outlined is None else self.is_outlined[index]
        return ScanDataset(
            scans, labels, cells, groups, seeds, entries, self.manifest, masks, known
        )

    def all(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return all scans and labels as one batch."""
        return self.batch(range(len(self)), device)

    def batch(self, index: Sequence[int] | Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return float32 scans (B, C, H, W) in [0, 1] and labels (B,) on the device."""
        rows = np.asarray(index)
        x = from_uint8(self.scans[rows])
        x = x[:, None] if x.ndim == 3 else x
        return x.to(device), self.labels[torch.as_tensor(rows)].to(device)

    def sample(self, index: Tensor, device: torch.device) -> Sample:
        """Return the scans of these rows with labels and masks, on the device."""
        x, y = self.batch(index, device)
        if self.masks is None or self.is_outlined is None:
            return Sample(x, y)
        rows = np.asarray(index)
        masks = from_uint8(self.masks[rows])[:, None].to(device)
        return Sample(x, y, masks, torch.from_numpy(self.is_outlined[rows]).to(device))

    def batches(self, size: int, device: torch.device) -> Sequence[Batch]:
        """Return the scans in order, `size` at a time; each batch is decoded when it is read."""
        return _Batches(self, list(batches(len(self), size)), device)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Batches(Sequence[Batch]):
    data: ScanDataset
    rows: list[range]
    device: torch.device

    def __getitem__(self, position: int) -> Batch:  # type: ignore[override]
        rows = self.rows[position]
        return Batch(*self.data.batch(rows, self.device), [self.data.seeds[i] for i in rows])

    def __len__(self) -> int:
        return len(self.rows)


def space_evenly(n: int, limit: int | None, *, truncate: bool = False) -> list[int]:
    """Return at most `limit` of n positions, first and last among them; None takes all.

    Positions between two scans are rounded to the nearest, or down with `truncate` as in training.

    Raises:
        ValueError: the limit is below 1.
    """
    if limit is None or limit >= n:
        return list(range(n))
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    positions = torch.linspace(0, n - 1, limit)
    return (positions if truncate else positions.round()).long().tolist()


def batches(n: int, size: int) -> Iterator[range]:
    """Yield positions 0..n-1 in order, `size` at a time; the last range may be shorter."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


def compute_weights(cells: Sequence[object], groups: Sequence[int]) -> Tensor:
    """Return weights (N,) float64: equal for all cells; each of n scans of a group counts n^-.5.

    A source of two classes has two cells, so that one of healthy scans alone counts half of it. A
    group is a patient where one is known, else near-duplicates.
    """
    sizes = Counter(zip(cells, groups, strict=True))
    weights = torch.tensor(
        [sizes[key] ** -0.5 for key in zip(cells, groups, strict=True)], dtype=torch.float64
    )
    for cell in set(cells):
        inside = torch.tensor([c == cell for c in cells])
        weights[inside] /= weights[inside].sum()
    return weights


@torch.no_grad()
def map_batches(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `fn` of scans (N, C, H, W), computed 50 at a time, on the CPU: (N, ...)."""
    return torch.cat([fn(b) for b in x.split(50)]).cpu()
