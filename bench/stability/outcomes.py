"""Outcomes of readings that may be refused: right, refused, or silently wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.unseen.mixtures import from_bits, to_bits
from core.stability import FORGIVEN

Rows = Mapping[str, dict[str, Any]]


class Reads(NamedTuple):
    """Readings of N scans."""

    right: Tensor  # (N,) bool
    distance: Tensor  # (N,) of the nearest flip that was found, in [0, 1] pixels; inf: none

    def is_refused(self, d: float) -> Tensor:
        """Mark the readings that are refused at the radius d, bool (N,)."""
        return self.distance <= d + FORGIVEN

    def is_silent(self, d: float) -> Tensor:
        """Mark the readings that are wrong and not refused, bool (N,)."""
        return ~self.right & ~self.is_refused(d)


def pack(reads: Reads) -> dict[str, Any]:
    """Convert readings for a result file; the distance is null where no flip was found."""
    distances = [d if math.isfinite(d) else None for d in reads.distance.tolist()]
    return {"right": to_bits(reads.right), "distance": distances}


def unpack(row: dict[str, Any]) -> Reads:
    """Invert `pack`."""
    distances = [math.inf if d is None else d for d in row["distance"]]
    return Reads(from_bits(row["right"]), torch.tensor(distances))


class Outcome(NamedTuple):
    """Worst case of N scans over several readings: each is in exactly one of the three."""

    silent: Tensor  # (N,) bool, wrong and not refused in at least one reading
    refused: Tensor  # (N,) bool, not silent, and refused in at least one
    right: Tensor  # (N,) bool, right and not refused in all


def find_worst(readings: Sequence[Reads], d: float) -> Outcome:
    """Find the worst outcome of each scan, at the radius d."""
    silent = torch.stack([reads.is_silent(d) for reads in readings]).any(0)
    refused = torch.stack([reads.is_refused(d) for reads in readings]).any(0) & ~silent
    return Outcome(silent, refused, ~silent & ~refused)
