"""Climbs the ladder: every attack on every target, on the scans that it still reads right.

The figure that counts is the worst case of each scan over all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.parallel import ParallelBatches
from bench.progress import say
from bench.result_file import ResultFile
from bench.robustness.attacks import RUNGS, Attacker, Rung
from bench.robustness.budgets import Budget
from bench.robustness.made_once import MadeOnce, maker_of
from bench.robustness.pace import Work, time_left
from bench.robustness.systems import Target
from bench.robustness.worst_case import kept, tried_in, unnoticed
from core.attacks.base import to_eight_bit
from train.data.dataset import Batch, ScanDataset, space_evenly

CLEAN = "clean"
BITS = ("right", "right_8bit", "unnoticed")


@dataclass
class Standing:
    """Scans (N,) bool that a target still reads right, also in 8 bits; that never got past it."""

    right: Tensor
    right_8bit: Tensor
    safe: Tensor

    def tried_by(self, rung: Rung, few: Tensor, watched: Tensor) -> Tensor:
        """Scans (N,) bool that an attack is tried on: those that still stand, and the few.

        Who fell with an alarm too, if it asks. A dear attack is tried on those of the few that
        stand, and the watched.
        """
        still = self.right | self.right_8bit
        if rung.few:
            return still & few | watched
        return still | few | (self.safe if rung.unnoticed else False)

    def after(self, row: dict[str, Any]) -> Standing:
        """With another row's falls."""
        right, in_8bit = self.right & kept(row), self.right_8bit & kept(row, "right_8bit")
        return Standing(right, in_8bit, self.safe & ~unnoticed(row))


def climb(
    store: ResultFile,
    fold: ScanDataset,
    targets: Sequence[Target],
    rungs: Sequence[Rung],
    attacker: Attacker,
    lanes: ParallelBatches,
    after: Callable[[str], None] = lambda _: None,
) -> None:
    """Fills `store` with a row 'RUNG: TARGET' for each pair that fits.

    `after` is told the target of every row that is whole.
    """
    budget = attacker.budget
    standing = {t.name: _begin(store, t, fold, budget, lanes) for t in targets}
    few, watched = compared_on(fold, budget)
    pairs = [(r, t) for r in rungs for t in targets if r.fits(t)]
    attack = None
    for count, (rung, target) in enumerate(pairs, 1):
        if attack is None or attack.rung is not rung:
            attack = MadeOnce(rung, attacker)
        now, name = standing[target.name], f"{rung.name}: {target.name}"
        tried = now.tried_by(rung, few, watched)
        rows = store.content["rows"]
        work, made = [], {(rung.name, maker) for maker, _ in attack.known}
        for r, t in pairs[count - 1 :]:
            if f"{r.name}: {t.name}" in rows:
                continue
            one, some = (r.name, maker_of(r, t)), standing[t.name].tried_by(r, few, watched)
            work.append(Work(r, t.name, 0 if one in made else int(some.sum())))
            made.add(one)
        took = time_left(rows, work, budget)
        rest = f"; the attacks to come take {took}" if took else ""
        say(f"{name} ({count} of {len(pairs)}): {int(tried.sum())} scans{rest}")

        standing[target.name] = now.after(_row(store, attack, target, fold, tried, lanes))
        after(target.name)


def _begin(
    store: ResultFile, target: Target, fold: ScanDataset, budget: Budget, lanes: ParallelBatches
) -> Standing:
    """Scans as they are, and after every attack that the file holds."""
    name, every = f"{CLEAN}: {target.name}", torch.ones(len(fold), dtype=torch.bool)

    def row() -> dict[str, Any]:
        found = attack_scans(store, name, target, fold, every, lambda s: [s.x], lanes)
        return {"row": CLEAN, "system": target.name, "meaning": target.meaning, **found}

    now = Standing(every, every, every).after(store.row(name, row, budget=vars(budget)))
    for rung in RUNGS:
        held = store.held(f"{rung.name}: {target.name}", budget=vars(budget))
        now = now.after(held) if held else now
    return now


def _row(
    store: ResultFile,
    attack: MadeOnce,
    target: Target,
    fold: ScanDataset,
    tried: Tensor,
    lanes: ParallelBatches,
) -> dict[str, Any]:
    """An attack's row; one that the file holds is tried on what it lacks of `tried` as well."""
    rung, settings = attack.rung, {"budget": vars(attack.attacker.budget)}
    name = f"{rung.name}: {target.name}"

    def on(some: Tensor) -> dict[str, Any]:
        before = len(attack.known)
        found = attack_scans(store, name, target, fold, some, partial(attack, target), lanes)
        if rung.alone:  # how many of its scans had been attacked for another system
            found["handed"] = found["tried"] - (len(attack.known) - before)
        return {"row": rung.name, "system": target.name, "meaning": rung.meaning, **found}

    row = store.row(name, lambda: on(tried), **settings)
    lacks = tried & ~tried_in(row)
    if lacks.any():
        say(f"{name}: lacks {int(lacks.sum())} of them")
        row = store.add(name, lambda: joined(row, on(lacks)))
    return row


def joined(row: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A row's figures with those of another of the same attack, on scans that it had not tried."""
    bits = {
        key: "".join(a if b == "-" else b for a, b in zip(row[key], more[key], strict=True))
        for key in BITS
        if key in row
    }
    found: dict[str, Any] = {**bits, **_counts(bits["right"])}
    if "scores" in row:
        rows = [tried_in(part).nonzero()[:, 0].tolist() for part in (row, more)]
        order = torch.tensor([i for part in rows for i in part]).argsort()
        tries = zip(row["scores"], more["scores"], strict=True)
        found["scores"] = [torch.tensor([*a, *b], dtype=torch.float64)[order].tolist()
                           for a, b in tries]  # fmt: skip
    return found


def _counts(right: str) -> dict[str, int]:
    return {"tried": len(right) - right.count("-"), "fell": right.count("0")}


def attack_scans(
    store: ResultFile,
    name: str,
    target: Target,
    fold: ScanDataset,
    tried: Tensor,
    attack: Callable[[Batch], Iterable[Tensor]],
    lanes: ParallelBatches,
) -> dict[str, Any]:
    """Bits of all scans, '-' where not tried, and the detector's scores of every try in 8 bits.

    A killed row goes on after its last whole batch.
    """
    rows = tried.nonzero()[:, 0].tolist()
    key = target.key
    start = {"of": rows, "weights": key, "done": 0, **dict.fromkeys(BITS, ""), "scores": []}
    state = store.begun(name, start)
    left = fold.pick(rows[state["done"] :])

    def tried_on(scans: Batch) -> After:
        return read_after(target, scans, list(attack(scans)))

    for after in lanes.map(tried_on, left, name) if len(left) else ():
        state |= {key: state[key] + after.bits[key] for key in BITS}
        state["scores"] = [
            [*old, *new] for old, new in zip(state["scores"] or [[]] * len(after.scores),
                                             after.scores, strict=True)
        ]  # fmt: skip
        state["done"] += len(after.bits["right"])
        store.keep(name, state)
    found = {"n": len(fold), "weights": key}
    for key in BITS if target.gate else BITS[:2]:
        bits_of = dict(zip(rows, state[key], strict=True))
        found[key] = "".join(bits_of.get(i, "-") for i in range(len(fold)))
    found |= _counts(found["right"])
    if state["scores"]:
        found["scores"] = state["scores"]
    return found


class After(NamedTuple):
    """What a system says of scans after every try: bits of '1' and '0', one string of each kind."""

    bits: dict[str, str]  # BITS: right whatever was tried, the same in 8 bits, misread unnoticed
    scores: list[list[float]]  # of the detector for each try in 8 bits, where there is one


@torch.no_grad()
def read_after(target: Target, scans: Batch, tries: Sequence[Tensor]) -> After:
    """How the whole system reads each scan after every try, as it is and rounded to 8 bits.

    Raises:
        ValueError: its outputs are no numbers.
    """
    x, y, seeds = scans
    right = torch.ones(2, len(y), dtype=torch.bool, device=y.device)
    unnoticed = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    scores = []
    for x_adv in tries:
        for i, changed in enumerate((x_adv, to_eight_bit(x, x_adv))):
            found = target.gate.read(changed, seeds) if target.gate else None
            logits = found.logits if found else target.logits(changed, seeds)
            if not torch.isfinite(logits).all():
                raise ValueError(f"{target.name} returns what is no number for an attacked scan")
            well = logits.argmax(1) == y
            if target.gate and found:
                flagged = found.score > target.gate.tau
                unnoticed |= ~well & ~flagged
                if target.refuses:
                    attacked = (changed != x).flatten(1).any(1)
                    well = torch.where(attacked, well | flagged, well & ~flagged)
                if i:
                    scores.append(found.score.tolist())
            right[i] &= well
    bits = ("".join("01"[int(bit)] for bit in row) for row in (*right, unnoticed))
    return After(dict(zip(BITS, bits, strict=True)), scores)


def compared_on(fold: ScanDataset, budget: Budget) -> tuple[Tensor, Tensor]:
    """Scans (N,) bool that attacks run on whatever has fallen: the few, and those dear ones do."""
    few = space_evenly(len(fold), budget.few_scans)
    masks = torch.zeros(2, len(fold), dtype=torch.bool)
    masks[0, few] = True
    masks[1, [few[i] for i in space_evenly(len(few), budget.checked)]] = True
    return masks[0], masks[1]
