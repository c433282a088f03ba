"""Certified accuracy: of how many scans it is proven that no small perturbation turns the reading.

The smoothed reader alone is measured, no part of the defence: see `core.smoothing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.data import Fold
from bench.progress import progress
from bench.result_file import ResultFile
from bench.summaries import members, share, share_by_group
from core.smoothing import Smoothed, lower_bound

EPS, NOISES, CHOOSE, ALPHA = 0.015, 1000, 100, 0.001
RADII = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.03)
CONSTANT = 0.5  # balanced accuracy of one answer for every scan, whatever the radius
KEEP_EVERY = 25  # scans


def run(
    store: ResultFile, reader: Smoothed, fold: Fold, *, eps: float, n0: int, n: int, alpha: float
) -> None:
    """Fills `store`: a row of what was said of each scan, and the figures that follow."""
    said = store.row("certificates", lambda: _certificates(store, reader, fold, n0, n, alpha))
    how = reader.reach, reader.config.sigma
    row = store.row("accuracy", lambda: figures(said, fold, eps, n, alpha, *how), eps=eps)
    if row["certified"]["balanced"] <= CONSTANT:
        store.warn(f"certified balanced accuracy at {eps:g} is no better than a constant answer's")


def _certificates(
    store: ResultFile, reader: Smoothed, fold: Fold, n0: int, n: int, alpha: float
) -> dict[str, Any]:
    """For each scan the label ('-': nothing said) and how many of n noised copies agreed."""
    device, name = next(reader.parameters()).device, "certificates"
    begun = store.begun(name, {"of": list(fold.seeds), "done": 0, "said": "", "agreed": []})
    said, agreed = begun["said"], list(begun["agreed"])
    lazies = fold.batches(1, device)[len(agreed) :]
    for lazy in progress(lazies, "certify"):
        x, _, seeds = lazy()
        found = reader.certify(x[0], n0=n0, n=n, alpha=alpha, seed=seeds[0])
        said += "-" if found.label is None else str(found.label)
        agreed.append(found.agreed)
        if len(agreed) % KEEP_EVERY == 0:
            store.keep(name, {**begun, "done": len(agreed), "said": said, "agreed": agreed})
    c, pixels = reader.config, int(reader.inside.sum())
    return {
        "said": said, "agreed": agreed, "sigma": c.sigma, "side": c.side, "pixels": pixels,
        "n": n, "n0": n0, "alpha": alpha,
    }  # fmt: skip


def figures(
    said: dict[str, Any], fold: Fold, eps: float, n: int, alpha: float, reach: float, sigma: float
) -> dict[str, Any]:
    """Balanced certified accuracy at `eps` and along a curve; abstaining counts as wrong."""
    normal = torch.distributions.Normal(0.0, 1.0)
    least = torch.tensor([lower_bound(k, n, alpha) for k in said["agreed"]], dtype=torch.float64)
    radius = sigma * normal.icdf(least.clamp_min(0.5)) / reach  # L-inf, of the scan
    right = torch.tensor([s == str(int(y)) for s, y in zip(said["said"], fold.y, strict=True)])
    return {
        "eps": eps,
        "constant": CONSTANT,
        "certified": block(right & (radius >= eps), fold),
        "clean": block(right, fold),
        "abstained": share(torch.tensor([s == "-" for s in said["said"]])),
        "largest_eps": float(sigma * normal.icdf(torch.tensor(alpha ** (1 / n))) / reach),
        "curve": {f"{r:g}": balanced(right & (radius >= r), fold)["balanced"] for r in RADII},
    }


def block(right: Tensor, fold: Fold) -> dict[str, Any]:
    """Balanced accuracy with intervals; per class, kind of tumour and source."""
    found = {**balanced(right, fold), "all": share(right)}
    found["recall"] = {k: share(right[rows]) for k, rows in members(fold.subtypes).items()}
    sources = members(fold.sources)
    if len(sources) > 1:
        found["sources"] = {
            name: balanced(right[rows], fold.pick(rows)) for name, rows in sources.items()
        }
    return found


def balanced(right: Tensor, fold: Fold) -> dict[str, Any]:
    """The mean of both classes' shares, with 95 % intervals by scan and by near-duplicate group.

    The classes' own intervals, Wilson's and the bootstrap's, are joined as those of independent
    shares (Newcombe 1998): each side's distances are added as squares.
    """
    parts = {}
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        rows = (fold.y == label).nonzero().flatten().tolist()
        if not rows:
            raise ValueError("balanced accuracy needs scans of both classes: raise --limit")
        groups = [fold.groups[i] for i in rows]
        parts[name] = share_by_group(right[rows], groups)
    mean = sum(part["accuracy"] for part in parts.values()) / 2
    joined = {
        name: _joined(mean, [(part["accuracy"], part[name]) for part in parts.values()])
        for name in ("interval", "interval_by_group")
    }
    return {"balanced": mean, **joined, **parts}


def _joined(mean: float, parts: Sequence[tuple[float, Sequence[float]]]) -> tuple[float, float]:
    low, high = (math.hypot(*(p - i[end] for p, i in parts)) / len(parts) for end in (0, 1))
    return mean - low, mean + high
