"""Rows that every scan and every system goes through, and how one of them is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.attacks.apgd import RESTART
from bench.figures import Reading, join
from bench.fold import Fold
from bench.known import check_known
from bench.progress import progress
from bench.signed_l2 import SignedL2
from bench.systems import Bench, System
from core.attack import PGD


@dataclass(frozen=True)
class Row:
    """One attack; `whole` follows the gradient through the purifier too."""

    name: str
    meaning: str
    attack: PGD | SignedL2 | None = None
    restarts: int = 1
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
    check_known("row", names, known)
    wanted = set(names) | ({"A0-8bit"} if "A0" in names else set())
    return [row for name, row in known.items() if name in wanted]


def measure(
    bench: Bench, fold: Fold, row: Row, systems: Sequence[System], batch_size: int = 32
) -> dict[str, Reading]:
    """Every system's reading of every scan of the fold, each system under the attack meant for it.

    Without `whole`, systems with the same classifier face the same attacked scans.
    """
    device = bench.pipeline.device
    collected: dict[str, list[Reading]] = {s.name: [] for s in systems}
    for lazy in progress(fold.batches(batch_size, device), row.name):
        x, y, seeds = lazy()
        for attacked, shared in _targets(bench, row, systems, seeds):
            x_adv = x if row.attack is None else strongest(row, attacked, x, y, seeds)
            for name, reading in bench.read(shared, x_adv, seeds).items():
                collected[name].append(reading)
    return {name: join(readings) for name, readings in collected.items()}


def strongest(
    row: Row,
    logits: Callable[[Tensor, Sequence[int]], Tensor],
    x: Tensor,
    y: Tensor,
    seeds: list[int],
) -> Tensor:
    """The attacked scans of highest loss over the row's restarts.

    Every scan gets the first run; later ones go to those that `logits(x, seeds)` still calls right.
    """
    attack, best = row.attack, x
    if attack is None:
        return x
    highest = torch.full((len(x),), -torch.inf, device=x.device)
    open_rows = torch.arange(len(x), device=x.device)
    for restart in range(row.restarts):
        own = [seeds[i] for i in open_rows.tolist()]
        starts = [seed + RESTART * restart for seed in own]
        candidate = attack(lambda z, own=own: logits(z, own), x[open_rows], y[open_rows], starts)
        with torch.no_grad():
            out = logits(candidate, own)
        loss = F.cross_entropy(out, y[open_rows], reduction="none")
        better = loss > highest[open_rows]
        best = best.index_copy(0, open_rows[better], candidate[better])
        highest = highest.index_copy(0, open_rows[better], loss[better])
        open_rows = open_rows[out.argmax(1) == y[open_rows]]
        if not len(open_rows):
            break
    return best


def _targets(
    bench: Bench, row: Row, systems: Sequence[System], seeds: Sequence[int]
) -> list[tuple[Callable[[Tensor, Sequence[int]], Tensor], list[System]]]:
    """What is attacked, and the systems that read the result."""
    if row.attack is None:
        return [(lambda z, _: z, list(systems))]
    if row.whole:
        return [(lambda z, own, s=s: bench.logits(s, z, own), [s]) for s in systems]
    surfaces = dict.fromkeys(s.surface for s in systems)
    return [
        (lambda z, _, name=name: bench.classify(name, z), [s for s in systems if s.surface == name])
        for name in surfaces
    ]
