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

from bench.budgets import Budget
from bench.fold import Batch, Fold, spread
from bench.lanes import Lanes
from bench.pace import Work, time_left
from bench.progress import say
from bench.rungs import Attacker, Rung
from bench.standings import kept, unnoticed
from bench.store import Store
from bench.targets import Target
from core.attack.step import to_eight_bit

CLEAN = "clean"
BITS = ("right", "right_8bit", "unnoticed")


@dataclass
class Standing:
    """Scans (N,) bool that a target still reads right, also in 8 bits; that never got past it."""

    right: Tensor
    right_8bit: Tensor
    safe: Tensor

    def open_to(self, rung: Rung, few: Tensor) -> Tensor:
        """Scans (N,) bool that an attack is still to be tried on, those of `few` where it is."""
        still = self.right | self.right_8bit
        return still & few if rung.few else still

    def tried_by(self, rung: Rung, few: Tensor, watched: Tensor) -> Tensor:
        """Those, the ones that every attack is tried on, and who fell with an alarm if it asks."""
        return self.open_to(rung, few) | watched | (self.safe if rung.unnoticed else False)

    def after(self, row: dict[str, Any]) -> Standing:
        """With another row's falls."""
        right, in_8bit = self.right & kept(row), self.right_8bit & kept(row, "right_8bit")
        return Standing(right, in_8bit, self.safe & ~unnoticed(row))


def climb(
    store: Store,
    fold: Fold,
    targets: Sequence[Target],
    rungs: Sequence[Rung],
    attacker: Attacker,
    lanes: Lanes,
    after: Callable[[str], None] = lambda _: None,
) -> None:
    """Fills `store` with a row 'RUNG: TARGET' for each pair that fits.

    `after` is told the target of every row that is whole.

    Raises:
        ValueError: a target's outputs are no logits.
    """
    for target in targets:
        check_target(target, fold, lanes.device)
    budget = attacker.budget
    standing = {t.name: _begin(store, t, fold, budget, lanes) for t in targets}
    few, watched = (torch.zeros(len(fold), dtype=torch.bool) for _ in range(2))
    few[spread(len(fold), budget.few_scans)] = True
    watched[watched_of(fold, budget)] = True
    pairs = [(r, t) for r in rungs for t in targets if r.fits(t)]
    for count, (rung, target) in enumerate(pairs, 1):
        now = standing[target.name]
        still, tried = now.open_to(rung, few), now.tried_by(rung, few, watched)
        name = f"{rung.name}: {target.name}"
        work = [
            Work(r, t.name, int(standing[t.name].tried_by(r, few, watched).sum()))
            for r, t in pairs[count - 1 :]
            if f"{r.name}: {t.name}" not in store.content["rows"]
        ]
        took = time_left(store.content["rows"], work, budget)
        rest = f"; the attacks to come take {took}" if took else ""
        say(f"{name} ({count} of {len(pairs)}): {int(tried.sum())} scans{rest}")

        def row(
            rung: Rung = rung,
            target: Target = target,
            still: Tensor = still,
            tried: Tensor = tried,
            name: str = name,
        ) -> dict[str, Any]:
            attack = partial(rung.tries, attacker, target)
            found = attack_scans(store, name, target, fold, tried, attack, lanes)
            right = [found["right"][i] for i in still.nonzero()[:, 0].tolist()]
            counts = {"tried": len(right), "fell": right.count("0")}  # of those that still stood
            return {"row": rung.name, "system": target.name, "meaning": rung.meaning,
                    **found, **counts}  # fmt: skip

        standing[target.name] = now.after(store.row(name, row, budget=vars(budget)))
        after(target.name)


def _begin(store: Store, target: Target, fold: Fold, budget: Budget, lanes: Lanes) -> Standing:
    """The row of scans as they are."""
    name, every = f"{CLEAN}: {target.name}", torch.ones(len(fold), dtype=torch.bool)

    def row() -> dict[str, Any]:
        found = attack_scans(store, name, target, fold, every, lambda s: [s.x], lanes)
        return {"row": CLEAN, "system": target.name, "meaning": target.meaning, **found}

    return Standing(every, every, every).after(store.row(name, row, budget=vars(budget)))


def attack_scans(
    store: Store,
    name: str,
    target: Target,
    fold: Fold,
    tried: Tensor,
    attack: Callable[[Batch], Iterable[Tensor]],
    lanes: Lanes,
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
    fell = state["right"].count("0")
    found = {"n": len(fold), "tried": len(rows), "fell": fell, "weights": key}
    for key in BITS if target.gate else BITS[:2]:
        bits_of = dict(zip(rows, state[key], strict=True))
        found[key] = "".join(bits_of.get(i, "-") for i in range(len(fold)))
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


@torch.no_grad()
def check_target(target: Target, fold: Fold, device: torch.device, limit: int = 8) -> None:
    """Refuses what attacks cannot follow.

    Raises:
        ValueError: outputs that are not numbers, probabilities in place of logits, one class, or
            one output for all scans.
    """
    x, _, seeds = fold.thin(limit).batches(limit, device)[0]()
    logits = target.logits(x, seeds)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"{target.name} returns {tuple(logits.shape)}, not a logit for each class")
    if not torch.isfinite(logits).all():
        raise ValueError(f"{target.name} returns what is no number for a clean scan")
    sums = logits.sum(1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise ValueError(
            f"{target.name} returns probabilities: their gradient vanishes where the system is "
            "sure, which looks like robustness; return logits or log-probabilities"
        )
    if len(x) > 1 and bool((logits == logits[0]).all()):
        raise ValueError(f"{target.name} says the same of every scan, whatever is in it")


def watched_of(fold: Fold, budget: Budget) -> list[int]:
    """Rows of the fold on which every attack runs, whatever has fallen: some of the few."""
    few = spread(len(fold), budget.few_scans)
    return [few[i] for i in spread(len(few), budget.checked)]
