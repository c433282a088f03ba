"""Out-of-fold answers: each scan is read by a network trained on the other parts of the data."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.scan import from_uint8, to_uint8
from train import recipes
from train.config import Preset
from train.data.dataset import ScanDataset, batches
from train.data.split import Entry
from train.device import autocast_logits
from train.phases.classifier import PLAIN, build_loss
from train.trainer import fit

SHRUNK_AT_A_TIME = 500


@dataclass(frozen=True)
class Course:
    """Training of one network, without attacks and without masks.

    Args:
        preset: whose table `plain` says how.
        scans: number of scans drawn.
        batch_size: scans at a time in reading.
        device: of training and reading.
    """

    preset: Preset
    scans: int
    batch_size: int
    device: torch.device


def deal_units(entries: Sequence[Entry], parts: int, repeat: int) -> list[int]:
    """Return the part of each scan; a unit is in one part.

    The units of a source and label, one with a tumour being a tumour, are dealt in the order of
    their hashes with the repeat, each to the part that has fewest scans of them.
    """
    sizes = Counter(entry.group for entry in entries)
    sources: dict[int, str] = {}
    sick: dict[int, bool] = defaultdict(bool)
    for entry in entries:
        sources.setdefault(entry.group, entry.source)
        sick[entry.group] |= bool(entry.record.label)

    def order(unit: int) -> str:
        return hashlib.sha256(f"{repeat}/{unit}".encode()).hexdigest()

    filled: dict[tuple[str, bool], list[int]] = defaultdict(lambda: [0] * parts)
    dealt = {}
    for unit in sorted(sizes, key=order):
        held = filled[sources[unit], sick[unit]]
        dealt[unit] = held.index(min(held))
        held[dealt[unit]] += sizes[unit]
    return [dealt[entry.group] for entry in entries]


def shrink(data: ScanDataset, side: int) -> ScanDataset:
    """Return the data with scans averaged to side x side, which is all that the network sees."""
    factor = data.scans.shape[-1] // side
    parts = []
    for rows in batches(len(data), SHRUNK_AT_A_TIME):
        x = from_uint8(data.scans[rows.start : rows.stop])[:, None]
        parts.append(to_uint8(F.avg_pool2d(x, factor)[:, 0]))
    return replace(data, scans=np.concatenate(parts))


def read_part(data: ScanDataset, out: Sequence[int], course: Course, seed: int) -> Tensor:
    """Train on all scans but those of rows `out`, and return the log-odds of these, float64.

    Raises:
        ValueError: the other scans are of one class.
    """
    held = set(out)
    train = data.pick([i for i in range(len(data)) if i not in held])
    if len(set(train.labels.tolist())) < 2:
        raise ValueError(
            "the scans outside a part are of one class: audit more scans or fewer --parts"
        )
    model = recipes.build_network(PLAIN, course.preset, seed)
    settings = PLAIN.settings(course.preset)
    epochs = math.ceil(course.scans / len(train))
    fit(
        model,
        train,
        build_loss(settings.loss, settings.augment, settings.styles),
        replace(settings.fit, epochs=epochs, samples=course.scans // epochs, seed=seed),
        validate=lambda network: {"score": 0.0},  # nothing is chosen: the last weights stay
        device=course.device,
    )
    return read_log_odds(model, data.pick(out), course)


@torch.no_grad()
def read_log_odds(model: nn.Module, data: ScanDataset, course: Course) -> Tensor:
    """Return the log-odds of 'tumour' of every scan, (N,) float64 on the CPU."""
    logits_of = autocast_logits(model, course.device)
    parts = []
    for rows in batches(len(data), course.batch_size):
        logits = logits_of(data.batch(rows, course.device)[0])
        parts.append((logits[:, 1] - logits[:, 0]).cpu().double())
    return torch.cat(parts)
