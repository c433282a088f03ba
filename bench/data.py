"""The scans of one fold with all that figures need: labels, groups, sources, subtypes, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.scan import from_uint8
from train.data.sources import DataError, find_records, load_scans
from train.data.split import MANIFESTS, Entry, Manifest, check_files, read_manifest


class Batch(NamedTuple):
    """B scans on the device."""

    x: Tensor  # (B, 1, H, W) in [0, 1]
    y: Tensor  # (B,)
    seeds: list[int]


@dataclass(frozen=True)
class Fold:
    """Scans stay uint8 until a batch is asked for; a scan's seed is its place in the manifest."""

    manifest: Manifest
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    scans: np.ndarray  # (N, H, W) uint8

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def y(self) -> Tensor:
        """Labels (N,) int64, 1 is 'tumour'."""
        return torch.tensor([e.record.label for e in self.entries])

    @property
    def groups(self) -> list[int]:
        """Near-duplicate group of each scan."""
        return [e.group for e in self.entries]

    @property
    def sources(self) -> list[str]:
        """Source of each scan."""
        return [e.source for e in self.entries]

    @property
    def subtypes(self) -> list[str]:
        """Kind of tumour, or 'no tumour'."""
        return [e.record.subtype for e in self.entries]

    def batches(self, size: int, device: torch.device) -> list[_LazyBatch]:
        """The scans in order, `size` at a time; each is decoded when called."""
        return [
            _LazyBatch(self, range(i, min(i + size, len(self))), device)
            for i in range(0, len(self), size)
        ]

    def pick(self, rows: Sequence[int]) -> Fold:
        """The fold of these rows alone."""
        return Fold(
            self.manifest,
            tuple(self.entries[i] for i in rows),
            tuple(self.seeds[i] for i in rows),
            self.scans[list(rows)],
        )

    def thin(self, limit: int | None) -> Fold:
        """At most `limit` scans, evenly spaced, so that classes and sources keep their shares."""
        return self.pick(spread(len(self), limit))


@dataclass(frozen=True)
class _LazyBatch:
    fold: Fold
    rows: range
    device: torch.device

    def __call__(self) -> Batch:
        x = from_uint8(self.fold.scans[self.rows.start : self.rows.stop])[:, None]
        seeds = list(self.fold.seeds[self.rows.start : self.rows.stop])
        y = self.fold.y[self.rows.start : self.rows.stop]
        return Batch(x.to(self.device), y.to(self.device), seeds)


def load_fold(
    protocol: str,
    name: str,
    data: str | Path,
    *,
    limit: int | None = None,
    cache: str | Path | None = ".cache",
    manifests: Path = MANIFESTS,
) -> Fold:
    """Reads the scans of fold `name` ('train', 'val' or 'test') of a protocol.

    Raises:
        DataError: the protocol is unknown, the fold is empty, or a file is not the manifest's.
        ValueError: the limit is below 1.
    """
    manifest = read_manifest(protocol, manifests)
    positions = manifest.fold(name)
    if not positions:
        raise DataError(f"the manifest of {protocol!r} has no scans in fold {name!r}")
    positions = [positions[i] for i in spread(len(positions), limit)]
    check_files(manifest, data, positions)
    entries = tuple(manifest.entries[i] for i in positions)
    if cache is None:  # decode what is asked for; a cache holds every scan, as training made it
        scans = load_scans(data, [e.record for e in entries])
    else:
        records = find_records(data, sorted({e.source for e in manifest.entries}))
        where = {r.file: i for i, r in enumerate(records)}
        scans = load_scans(data, records, cache)[[where[e.file] for e in entries]]
    return Fold(manifest, entries, tuple(positions), scans)


def spread(n: int, limit: int | None) -> list[int]:
    """At most `limit` of n positions, evenly spaced; None takes all."""
    if limit is None or limit >= n:
        return list(range(n))
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    return torch.linspace(0, n - 1, limit).round().long().tolist()
