"""The scans of one fold: what they show, how much each counts, and batches of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from core.scan import from_uint8


@dataclass(frozen=True)
class ScanDataset:
    """Scans of one fold with labels; uint8 until a batch is drawn."""

    scans: np.ndarray  # (N, H, W) or (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    cells: Sequence[str]  # (N,) 'source/label': what shall count the same
    groups: Sequence[int]  # (N,) near-duplicates share a number

    @cached_property
    def weights(self) -> Tensor:
        """How much each scan counts, (N,) float64: see `balanced_weights`."""
        return balanced_weights(self.cells, self.groups)

    def spaced(self, limit: int) -> ScanDataset:
        """At most `limit` of the scans, evenly spaced, first and last among them."""
        if limit >= len(self):
            return self  # a copy would hold all scans twice
        return self.pick(torch.linspace(0, len(self) - 1, limit).long().tolist())

    def pick(self, rows: Sequence[int]) -> ScanDataset:
        """The scans of these rows; they get weights of their own."""
        index = list(rows)
        cells, groups = [self.cells[i] for i in index], [self.groups[i] for i in index]
        return ScanDataset(self.scans[index], self.labels[index], cells, groups)

    def all(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The one batch that holds all of it."""
        return self.batch(range(len(self)), device)

    def batch(self, index: Sequence[int] | Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Float32 scans (B, C, H, W) in [0, 1] and labels (B,)."""
        rows = np.asarray(index)
        x = from_uint8(self.scans[rows])
        x = x[:, None] if x.ndim == 3 else x
        return x.to(device), self.labels[torch.as_tensor(rows)].to(device)

    def __len__(self) -> int:
        return len(self.labels)


def batches(n: int, size: int) -> Iterator[range]:
    """Positions 0..n-1 in order, in runs of `size`; the last may be shorter."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


def balanced_weights(cells: Sequence[object], groups: Sequence[int]) -> Tensor:
    """Weights (N,) float64: cells share equally; n near-duplicates in a cell count as sqrt(n)."""
    sizes = Counter(zip(cells, groups, strict=True))
    weights = torch.tensor(
        [sizes[key] ** -0.5 for key in zip(cells, groups, strict=True)], dtype=torch.float64
    )
    for cell in set(cells):
        inside = torch.tensor([c == cell for c in cells])
        weights[inside] /= weights[inside].sum()
    return weights


@torch.no_grad()
def mapped(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`fn` of scans (N, C, H, W), 50 at a time, on the CPU: (N, ...)."""
    return torch.cat([fn(b) for b in x.split(50)]).cpu()
