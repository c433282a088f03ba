"""The evaluation distrusts itself: what must hold if attacks work and gradients are not masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.robustness.old_systems import Bench, System
from bench.robustness.rows import Row, measure
from core import metrics
from core.attacks import PGD
from core.attacks.base import noise_in_ball
from train.data.dataset import ScanDataset

SCANS = 32  # enough to see a mask, few enough to be free
SLACK = 0.01  # a point of accuracy


def check_attacks(
    bench: Bench, fold: ScanDataset, systems: Sequence[System], eps: float, batch_size: int = 32
) -> tuple[dict[str, Any], list[str]]:
    """Small attacks with known outcome on each classifier.

    Returns:
        The figures, and a sentence for each law that is broken.
    """
    few, found, warnings = fold.thin(SCANS), {}, []
    alone = [s for s in systems if s.policy is None]

    def right(row: Row) -> dict[str, float]:
        readings = measure(bench, few, row, alone, batch_size)
        return {name: metrics.accuracy(r.probability, few.labels) for name, r in readings.items()}

    clean = right(Row("check clean", ""))
    zero = right(Row("check eps 0", "", PGD(eps=0.0)))
    attacked = right(Row("check A0", "", PGD(eps=eps, alpha=max(eps / 5, 1e-9))))
    large = right(Row("check eps .25", "", PGD(eps=0.25, alpha=0.03, steps=20)))
    noisy = _under_noise(bench, few, alone, eps)
    for name in clean:
        found[name] = {
            "clean": clean[name],
            "eps_0": zero[name],
            "noise": noisy[name],
            "A0": attacked[name],
            "eps_.25": large[name],
        }
        if zero[name] != clean[name]:
            warnings.append(f"{name}: eps 0 gives {zero[name]:.3f}, clean {clean[name]:.3f}")
        if attacked[name] > noisy[name] + SLACK:
            warnings.append(
                f"{name}: PGD ({attacked[name]:.3f}) is weaker than noise ({noisy[name]:.3f})"
            )
        if large[name] > 0.05:
            warnings.append(f"{name}: eps .25 leaves {large[name]:.3f}: gradients may be masked")
    return {"n": len(few), "systems": found}, warnings


def check_rows(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stronger rows must not leave more scans right, by more than a point, for any system."""
    warnings = []
    pairs = [p for p in (("clean", "A0"), ("clean", "A0-8bit")) if rows.keys() >= set(p)]
    for weak, strong in pairs:
        before, after = rows[weak]["systems"], rows[strong]["systems"]
        for name in before.keys() & after.keys():
            if after[name]["accuracy"] > before[name]["accuracy"] + SLACK:
                warnings.append(
                    f"{name}: {strong} leaves {after[name]['accuracy']:.3f}, "
                    f"more than {weak} ({before[name]['accuracy']:.3f})"
                )
    return sorted(warnings)


def in_corner(x: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
    """Scans whose every pixel has moved by eps, up or down at random."""
    return (x + eps * noise_in_ball(x, 1.0, "linf", seeds).sign()).clamp(0, 1)


@torch.no_grad()
def _under_noise(
    bench: Bench, fold: ScanDataset, systems: Sequence[System], eps: float
) -> dict[str, float]:
    """Accuracy when every pixel moves by eps, up or down at random."""
    x, _, seeds = fold.batches(len(fold), bench.pipeline.device)[0]
    noisy = in_corner(x, eps, seeds)
    readings = bench.read(systems, noisy, seeds)
    return {n: metrics.accuracy(r.probability.cpu(), fold.labels) for n, r in readings.items()}
