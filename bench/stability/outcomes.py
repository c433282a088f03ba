"""Outcomes of readings that may be refused: right, refused, or silently wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.intervals import draw_units
from bench.summaries import from_bits, share_by_unit, to_bits
from core.stability import FORGIVEN, RADII

Rows = Mapping[str, dict[str, Any]]
CLEAN, NOISES, CONSISTENT = "clean", ("grain", "sign noise"), "CHCMOA"
ATTACKS = ("PGD-7", "APGD-CE", "HCMOA")
SMALLER = (0.25, 0.5)  # sizes of further attacks, in eps, that seek a refusal or a wrong answer
NONE = 0.0  # a radius at which nothing is refused


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


def list_worst(rows: Rows) -> list[Reads]:
    """Return the readings of the worst case: clean, and under every attack."""
    smaller = [name for name in map(name_smaller, SMALLER) if name in rows]
    consistent = [name for name in rows if name.startswith(CONSISTENT)]
    return [unpack(rows[name]) for name in (CLEAN, *ATTACKS, *smaller, *consistent)]


def name_smaller(share: float) -> str:
    """Return the row of the attack of a share of eps."""
    return f"HCMOA {share:g}"


def find_robust(rows: Rows, d: float, share: float) -> Tensor:
    """Mark the scans of robustness with rejection at eps0 = `share` eps, bool (N,).

    Chen et al. (2023): answered right under attacks of at most eps0, and answered right or refused
    under all others.
    """
    within = [unpack(rows[CLEAN])]
    within += [unpack(rows[name_smaller(s)]) for s in SMALLER if s <= share]
    is_answered = torch.stack([reads.right & ~reads.is_refused(d) for reads in within]).all(0)
    return is_answered & ~find_worst(list_worst(rows), d).silent


class Curve(NamedTuple):
    """Risk by coverage, as the radius grows from 0: what refusing costs and saves."""

    radii: list[float]
    coverage: list[float]  # share of the scans that are answered
    risk: list[float]  # share of the answers that are wrong


def draw_curve(readings: Sequence[Reads]) -> Curve:
    """Compute risk and coverage of the worst case of several readings, at each radius tried."""
    radii = [NONE, *RADII]
    worst = [find_worst(readings, d) for d in radii]
    answered = [int((w.silent | w.right).sum()) for w in worst]
    silent = [int(w.silent.sum()) for w in worst]
    risk = [k / n if n else 0.0 for k, n in zip(silent, answered, strict=True)]
    return Curve(radii, [n / len(readings[0].right) for n in answered], risk)


def summarize_outcomes(rows: Rows) -> dict[str, Any]:
    """Compute the shares of all scans by radius, with intervals by unit; 0: nothing is refused."""
    times = draw_units(rows["scans"]["units"])
    return {"by_radius": {f"{d:g}": _summarize(rows, times, d) for d in (NONE, *RADII)}}


def _summarize(rows: Rows, times: Tensor, d: float) -> dict[str, Any]:
    clean, worst = unpack(rows[CLEAN]), find_worst(list_worst(rows), d)
    everything = torch.ones_like(worst.right)
    shares = {
        "clean_refused": (clean.is_refused(d), everything),
        "clean_silent": (clean.is_silent(d), everything),
        "worst_silent": (worst.silent, everything),
        "worst_refused": (worst.refused, everything),
        "worst_right": (worst.right, everything),
        "answered_right": (worst.right, worst.right | worst.silent),
    }
    if all(name_smaller(share) in rows for share in SMALLER):
        shares |= {
            f"robust, eps0 {share:g} eps": (find_robust(rows, d, share), everything)
            for share in (0.0, *SMALLER)
        }
    shares |= {f"{name} refused": (unpack(rows[name]).is_refused(d), everything) for name in NOISES}
    return {name: share_by_unit(times, *parts) for name, parts in shares.items()}
