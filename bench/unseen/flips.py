"""Refusals on a source that training left out: answers that a small change would flip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench.intervals import draw_units
from bench.parallel import progress
from bench.stability.outcomes import Reads
from bench.summaries import share_by_unit
from core.classifier import Calibrated
from core.stability import RADII, find_flips
from train.data.dataset import ScanDataset

SCANS = 300  # of a source, evenly spaced
COLUMNS = {
    "refused": "refused, %",
    "silent": "silently wrong, %",
    "right": "right of those answered, %",
}


def find_distances(
    classifier: Calibrated, part: ScanDataset, batch_size: int, device: torch.device
) -> Tensor:
    """Find the distance (N,) of the nearest flip of each scan as a reading does; inf: none."""
    return torch.cat(
        [
            find_flips(classifier, x).distance.cpu()
            for x, _, _ in progress(part.batches(batch_size, device), "flips")
        ]
    )


def measure_flips(log_odds: Tensor, distance: Tensor, part: ScanDataset) -> dict[str, Any]:
    """Compute the shares of scans that are refused, silently wrong, and right if answered.

    Args:
        log_odds: (N,) of a tumour.
        distance: (N,) of the nearest flip; inf where none was found.
        part: the N scans.
    """
    reads, times = Reads((log_odds >= 0) == (part.labels == 1), distance), draw_units(part.groups)
    everything, by_radius = torch.ones_like(reads.right), {}
    for d in RADII:
        shares = {
            "refused": (reads.is_refused(d), everything),
            "silent": (reads.is_silent(d), everything),
            "right": (reads.right, ~reads.is_refused(d)),
        }
        by_radius[f"{d:g}"] = {k: share_by_unit(times, *v) for k, v in shares.items()}
    return {"n": len(part), "by_radius": by_radius}


def render_flips(first: list[str], found: dict[str, Any]) -> Iterator[list[str]]:
    """Render a row of cells for each radius."""
    for d, shares in found["by_radius"].items():
        yield [*first, d, *(md.share(shares[name]) for name in COLUMNS)]
