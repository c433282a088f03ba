"""Scans that attackers try to rebuild: one a patient, and what each is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core import metrics
from core.scan import from_uint8
from train.data.corpus import Corpus
from train.data.dataset import ScanDataset, space_evenly
from train.data.partition import PartitionConfig, assign, list_rows

CANDIDATES = 200  # at most, of the same source and label, the target among them
MEANT = 60  # scans whose mean is a floor
COARSE = 28  # side at which pictures are compared to tell whose they are
HEAD = 0.05  # brightness from which a pixel belongs to the head


@dataclass(frozen=True)
class Target:
    """A training scan of a hospital, and other patients' scans of the same source and label."""

    row: int  # in the training scans of all hospitals
    hospital: int
    scan: Tensor  # (1, 1, H, W) in [0, 1]
    label: int
    others: Tensor  # (C, 1, H, W): candidates without the target


def choose_targets(
    corpus: Corpus, partition: PartitionConfig, count: int, seed: int
) -> list[Target]:
    """Choose `count` scans evenly over cells and hospitals, one of a patient and label."""
    train, owners = corpus.train, assign(list_rows(corpus), partition)
    rng = np.random.default_rng(seed)
    drawn = _draw_one_each(train, rng)
    rows = rng.permutation(drawn).tolist()
    by_cell: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        by_cell.setdefault((train.cells[row], owners[row]), []).append(row)
    picked: list[int] = []
    while len(picked) < count and any(by_cell.values()):
        for queue in by_cell.values():
            if queue and len(picked) < count:
                picked.append(queue.pop(0))
    picked.sort(key=lambda row: owners[row])
    return [_build(train, row, owners[row], drawn, rng) for row in picked]


def _draw_one_each(train: ScanDataset, rng: np.random.Generator) -> list[int]:
    """Draw a scan of each patient or group and label."""
    found: dict[tuple[int, str], list[int]] = {}
    for row, key in enumerate(zip(train.groups, train.cells, strict=True)):
        found.setdefault(key, []).append(row)
    return [int(rng.choice(rows)) for _, rows in sorted(found.items())]


def _build(
    train: ScanDataset, row: int, hospital: int, drawn: list[int], rng: np.random.Generator
) -> Target:
    same = [
        other for other in drawn
        if train.cells[other] == train.cells[row] and train.groups[other] != train.groups[row]
    ]  # fmt: skip
    chosen = rng.permutation(same)[: CANDIDATES - 1].tolist()
    return Target(row, hospital, _read(train, [row]), int(train.labels[row]), _read(train, chosen))


def _read(train: ScanDataset, rows: list[int]) -> Tensor:
    return from_uint8(train.scans[rows])[:, None]


def compare(found: Tensor, target: Target) -> dict[str, float]:
    """Compute how near a rebuilt scan (1, 1, H, W) is to its target, and whether it names it."""
    top, bottom, left, right = find_head(target.scan)
    inside = (slice(None), slice(None), slice(top, bottom), slice(left, right))
    return {
        "psnr": min(float(metrics.psnr(found, target.scan)), 150.0),
        "ssim": float(metrics.ssim(found, target.scan)),
        "ssim_head": float(metrics.ssim(found[inside], target.scan[inside])),
        "rank": float(rank(found, target)),
        "chance": 1 / (1 + len(target.others)),
    }


def compare_floors(target: Target) -> dict[str, dict[str, float]]:
    """Compute the same of pictures that cost no attack: mean, nearest other patient, black."""
    few = target.others[space_evenly(len(target.others), MEANT)]
    nearest = int(rank_all(target.scan, target.others).argmax())
    pictures = {
        "mean scan": few.mean(0, keepdim=True),
        "nearest other": target.others[nearest : nearest + 1],
        "black": torch.zeros_like(target.scan),
    }
    return {name: compare(picture, target) for name, picture in pictures.items()}


def find_head(scan: Tensor) -> tuple[int, int, int, int]:
    """Return the head's box (top, bottom, left, right) in a scan (1, 1, H, W)."""
    mask = scan[0, 0] > HEAD
    rows, columns = (mask.any(d).nonzero()[:, 0] for d in (1, 0))
    if not len(rows):
        return 0, scan.shape[2], 0, scan.shape[3]
    top, left = int(rows[0]), int(columns[0])
    return top, max(int(rows[-1]) + 1, top + 11), left, max(int(columns[-1]) + 1, left + 11)


def rank(found: Tensor, target: Target) -> int:
    """Return the target's place among the candidates by likeness: 0 is identified.

    Candidates as like as the target stand before it: a picture that tells nothing names nobody.
    """
    likeness = rank_all(found, torch.cat([target.scan, target.others]))
    return int((likeness[1:] >= likeness[0]).sum())


def rank_all(found: Tensor, scans: Tensor) -> Tensor:
    """Compute the correlation (N,) of a picture (1, 1, H, W) with scans, on averages."""
    a, b = (_standardise(x) for x in (found, scans))
    return (a * b).mean(1)


def _standardise(x: Tensor) -> Tensor:
    small = F.adaptive_avg_pool2d(x.double(), COARSE).flatten(1)
    return (small - small.mean(1, keepdim=True)) / small.std(1, keepdim=True).clamp_min(1e-9)
