"""Rows that every scan and every system goes through, and how one of them is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.names import require_known
from bench.progress import progress
from bench.robustness.old_systems import RANK, Bench, System
from bench.summaries import Reading, check_numbers, join
from core.attacks import PGD
from core.attacks.base import LogitsFn
from core.attacks.signed_l2 import SignedL2
from train.data.dataset import Batch, ScanDataset


@dataclass(frozen=True)
class Row:
    """One attack; `whole`: on the whole of a system, the purifier's gradient included."""

    name: str
    meaning: str
    attack: PGD | SignedL2 | None = None
    whole: bool = False


def rows(eps: float = 0.015) -> dict[str, Row]:
    """All rows by name, for one size of perturbation."""
    fine = max(eps, 1e-9) / 5  # the paper's .003 at its eps of .015
    listed = (
        Row("clean", "scans as they are"),
        Row("A0", "the paper's PGD-7, random start, classifier alone", PGD(eps, fine, 7)),
        Row("A0-8bit", "A0 rounded to 8 bits", PGD(eps, fine, 7, eight_bit=True)),
    )
    return {row.name: row for row in listed}


def rows_named(names: Sequence[str], eps: float = 0.015) -> list[Row]:
    """The rows of these names, in the order of strength; A0 brings its 8-bit form along.

    Raises:
        ValueError: a name is unknown.
    """
    known = rows(eps)
    require_known("row", names, known)
    wanted = set(names) | ({"A0-8bit"} if "A0" in names else set())
    return [row for name, row in known.items() if name in wanted]


def measure(
    bench: Bench, fold: ScanDataset, row: Row, systems: Sequence[System], batch_size: int = 32
) -> dict[str, Reading]:
    """Every system's reading of every scan of the fold, each attacked through its own classifier.

    Systems with the same classifier face the same attacked scans.

    Raises:
        ValueError: a system returns what is no number.
    """
    surfaces = dict.fromkeys(s.surface for s in systems)
    collected: dict[str, list[Reading]] = {s.name: [] for s in systems if s.policy != RANK}
    ranked = {s: list[tuple[Tensor, list[int]]]() for s in systems if s.policy == RANK}
    for scans in progress(fold.batches(batch_size, bench.pipeline.device), row.name):
        for surface in surfaces if row.attack else [None]:
            sharing = [s for s in systems if surface in (None, s.surface)]
            x = attacked(row, partial(bench.classify, surface or ""), scans)
            alone = [s for s in sharing if s.policy != RANK]
            for name, reading in bench.read(alone, x, scans.seeds).items():
                collected[name].append(reading)
            for system in ranked.keys() & set(sharing):
                ranked[system].append((x, scans.seeds))
    whole = {s.name: by_rank(bench, s.surface, parts) for s, parts in ranked.items()}
    found = {name: join(readings) for name, readings in collected.items()} | whole
    for name, reading in found.items():
        check_numbers(name, reading.probability)
    return {s.name: found[s.name] for s in systems}


@torch.no_grad()
def by_rank(bench: Bench, surface: str, parts: Sequence[tuple[Tensor, Sequence[int]]]) -> Reading:
    """The paper's gate as published: of a data set, the share kappa of highest error is purified.

    `parts` are scans (B, C, H, W) with their seeds, all of the data set: what is flagged depends on
    the others. Flagged scans are purified the deeper the higher the score, as elsewhere.
    """
    system = bench.pipeline
    score = torch.cat([system.detect(x).scores["paper"] for x, _ in parts])
    flagged = system.detector.flag_by_rank(score)
    span = system.detector.span_of("paper")
    least = score[flagged].min() if flagged.any() else score.max()  # who is purified least
    below = float(torch.nextafter(least, least.new_tensor(-torch.inf)))
    t_star = system.purifier.t_star(score, below, span, "paper")
    depths = t_star.masked_fill(~flagged, 0).split([len(x) for x, _ in parts])
    probability = [
        bench.classify(surface, system.purify(x, depth, seeds)).exp()[:, 1]
        for (x, seeds), depth in zip(parts, depths, strict=True)
    ]
    return join([Reading(torch.cat(probability), flagged, torch.cat(depths))])


def attacked(row: Row, logits_fn: LogitsFn, scans: Batch) -> Tensor:
    """The scans (B, C, H, W) after the row's attack on `logits_fn`; as they are without one."""
    x, y, seeds = scans
    return x if row.attack is None else row.attack(logits_fn, x, y, seeds)
