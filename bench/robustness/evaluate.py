"""The loop of every evaluation: attack a batch, read the adversarial examples, for each scan.

The attack suite attacks the scans that a system still reads correctly; its result is the worst
case of each scan over all attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from bench.parallel import ParallelBatches, say
from bench.result_file import ResultFile
from bench.robustness.attacks import (
    CLASSIFIER,
    CLEAN,
    DETECTOR,
    SURROGATES,
    Attack,
    Attacker,
    Budget,
    attacks_named,
    row_names,
)
from bench.robustness.systems import RANK, System, read_by_rank, read_together
from bench.robustness.worst_case import evaluated_mask, robust_mask, undetected_mask
from bench.summaries import Reading, check_numbers, join_readings
from core.attacks.base import to_eight_bit
from core.pipeline import MedFedPure
from train.data.dataset import Batch, ScanDataset, space_evenly

BITS = ("right", "right_8bit", "unnoticed")
T = TypeVar("T")


def evaluate(
    attack: Callable[[Batch], Iterable[Tensor]],
    read: Callable[[Batch, list[Tensor]], T],
    fold: ScanDataset,
    lanes: ParallelBatches,
    label: str,
) -> Iterator[T]:
    """Yield the reading of each batch of a fold after every try of an attack."""
    return lanes.map(lambda scans: read(scans, list(attack(scans))), fold, label)


@dataclass
class CachedAttack:
    """An attack that keeps its adversarial examples where they do not depend on the defence.

    Systems with one classifier meet the same examples; examples of surrogate models are those of
    all systems. `known` holds the tries on the CPU by their model and the scan's seed.
    """

    attack: Attack
    attacker: Attacker
    known: dict[tuple[object, int], list[Tensor]] = field(default_factory=dict)

    def __call__(self, system: System, scans: Batch) -> Iterable[Tensor]:
        """Return adversarial examples (B, C, H, W), one tensor for each try."""
        if not self.attack.is_shared:
            return self.attack.generate(self.attacker, system, scans)
        x, y, seeds = scans
        model = None if self.attack.knows == SURROGATES else system.classify
        keys = [(model, seed) for seed in seeds]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            some = Batch(x[new], y[new], [seeds[i] for i in new])
            tries = [tried.cpu() for tried in self.attack.generate(self.attacker, system, some)]
            self.known |= {keys[i]: [x_adv[row] for x_adv in tries] for row, i in enumerate(new)}
        every = zip(*(self.known[key] for key in keys), strict=True)
        return [torch.stack(one).to(x.device) for one in every]


@dataclass
class RobustScans:
    """Scans (N,) bool that are still correct, also in 8 bits; that no attack got undetected."""

    right: Tensor
    right_8bit: Tensor
    never_undetected: Tensor

    def to_attack(self, attack: Attack, few: Tensor, checked: Tensor) -> Tensor:
        """Return the scans (N,) bool that an attack runs on: those still correct, and `few`.

        Expensive attacks run on the correct ones of `few` and on `checked`; detector-aware attacks
        also on scans that were broken but flagged.
        """
        correct = self.right | self.right_8bit
        if attack.expensive:
            return correct & few | checked
        return correct | few | (self.never_undetected if attack.knows == DETECTOR else False)

    def after(self, row: dict[str, Any]) -> RobustScans:
        """Return the state after removing the scans that a row's attack broke."""
        in_8bit = self.right_8bit & robust_mask(row, "right_8bit")
        undetected = self.never_undetected & ~undetected_mask(row)
        return RobustScans(self.right & robust_mask(row), in_8bit, undetected)


def run_suite(
    store: ResultFile,
    fold: ScanDataset,
    systems: Sequence[System],
    attacks: Sequence[Attack],
    attacker: Attacker,
    lanes: ParallelBatches,
    after: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill `store` with a row 'ATTACK: SYSTEM' for each pair that fits.

    `after` is called with the system's name after every finished row.
    """
    budget = attacker.budget
    states = {s.name: _begin(store, s, fold, budget, lanes) for s in systems}
    few, checked = comparison_masks(fold, budget)
    pairs = [(a, s) for a in attacks for s in systems if a.fits_to(s)]
    cached = None
    for count, (attack, system) in enumerate(pairs, 1):
        if cached is None or cached.attack is not attack:
            cached = CachedAttack(attack, attacker)
        state = states[system.name]
        chosen = state.to_attack(attack, few, checked)
        say(f"{attack.key}: {system.name} ({count} of {len(pairs)}): {int(chosen.sum())} scans")
        states[system.name] = state.after(_row(store, cached, system, fold, chosen, lanes))
        after(system.name)


def _begin(
    store: ResultFile, system: System, fold: ScanDataset, budget: Budget, lanes: ParallelBatches
) -> RobustScans:
    """Return the state of clean scans, less what the rows in the file have broken."""
    name, every = f"{CLEAN.key}: {system.name}", torch.ones(len(fold), dtype=torch.bool)

    def row() -> dict[str, Any]:
        found = evaluate_scans(store, name, system, fold, every, lambda s: [s.x], lanes)
        return {"row": CLEAN.key, "system": system.name, "meaning": system.meaning, **found}

    state = RobustScans(every, every, every).after(store.row(name, row, budget=vars(budget)))
    for attack in attacks_named(row_names()):
        held = store.held(f"{attack.key}: {system.name}", budget=vars(budget))
        state = state.after(held) if held else state
    return state


def _row(
    store: ResultFile,
    cached: CachedAttack,
    system: System,
    fold: ScanDataset,
    chosen: Tensor,
    lanes: ParallelBatches,
) -> dict[str, Any]:
    """Return an attack's row; a finished one that lacks some of `chosen` is measured again."""
    attack, settings = cached.attack, {"budget": vars(cached.attacker.budget)}
    name = f"{attack.key}: {system.name}"
    held = store.held(name, **settings)
    done = evaluated_mask(held) if held else torch.zeros_like(chosen)
    is_short = bool((chosen & ~done).any())

    def row() -> dict[str, Any]:
        before = len(cached.known)
        found = evaluate_scans(
            store, name, system, fold, chosen | done, partial(cached, system), lanes
        )
        if held:  # a scan that was broken before stays broken
            for form in BITS[:2]:
                pairs = zip(found[form], held[form], strict=True)
                found[form] = "".join("0" if old == "0" else new for new, old in pairs)
            found["fell"] = found["right"].count("0")
        if attack.is_shared:  # how many of its examples another system's row had made
            found["handed"] = found["tried"] - (len(cached.known) - before)
        return {"row": attack.key, "system": system.name, "meaning": attack.meaning, **found}

    return store.row(name, row, again=is_short, **settings)


def evaluate_scans(
    store: ResultFile,
    name: str,
    system: System,
    fold: ScanDataset,
    chosen: Tensor,
    attack: Callable[[Batch], Iterable[Tensor]],
    lanes: ParallelBatches,
) -> dict[str, Any]:
    """Return bits of all scans, '-' where not attacked, and the detector's scores in 8 bits.

    A stopped row resumes after its last whole batch.
    """
    rows = chosen.nonzero()[:, 0].tolist()
    key = system.key
    start = {"of": rows, "weights": key, "done": 0, **dict.fromkeys(BITS, ""), "scores": []}
    state = store.begun(name, start)
    left = fold.pick(rows[state["done"] :])
    read = partial(read_adversarial, system)
    for result in evaluate(attack, read, left, lanes, name) if len(left) else ():
        state |= {key: state[key] + result.bits[key] for key in BITS}
        old = state["scores"] or [[]] * len(result.scores)
        state["scores"] = [[*a, *b] for a, b in zip(old, result.scores, strict=True)]
        state["done"] += len(result.bits["right"])
        store.keep(name, state)
    found = {"n": len(fold), "weights": key}
    for key in BITS if system.detector else BITS[:2]:
        bits_of = dict(zip(rows, state[key], strict=True))
        found[key] = "".join(bits_of.get(i, "-") for i in range(len(fold)))
    found |= {"tried": len(rows), "fell": found["right"].count("0")}
    if state["scores"]:
        found["scores"] = state["scores"]
    return found


class AdversarialReading(NamedTuple):
    """Readings of B scans after every try of an attack: bits of '1' and '0', one string a kind."""

    bits: dict[str, str]  # BITS: correct after every try, also in 8 bits; misread and not flagged
    scores: list[list[float]]  # of the detector for each try in 8 bits, where there is one


@torch.no_grad()
def read_adversarial(system: System, scans: Batch, tries: Sequence[Tensor]) -> AdversarialReading:
    """Read each scan after every try, as it is and rounded to 8 bits.

    Raises:
        ValueError: the system's outputs are not numbers.
    """
    x, y, seeds = scans
    right = torch.ones(2, len(y), dtype=torch.bool, device=y.device)
    undetected = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    scores = []
    for x_adv in tries:
        for i, changed in enumerate((x_adv, to_eight_bit(x, x_adv))):
            found = system.detector.read(changed, seeds) if system.detector else None
            logits = found.logits if found else system.logits(changed, seeds)
            if not torch.isfinite(logits).all():
                raise ValueError(f"{system.name} returns what is no number for an attacked scan")
            correct = logits.argmax(1) == y
            if system.detector and found:
                flagged = found.score > system.detector.tau
                undetected |= ~correct & ~flagged
                if system.refuses:
                    attacked = (changed != x).flatten(1).any(1)
                    correct = torch.where(attacked, correct | flagged, correct & ~flagged)
                if i:
                    scores.append(found.score.tolist())
            right[i] &= correct
    bits = ("".join("01"[int(bit)] for bit in row) for row in (*right, undetected))
    return AdversarialReading(dict(zip(BITS, bits, strict=True)), scores)


def comparison_masks(fold: ScanDataset, budget: Budget) -> tuple[Tensor, Tensor]:
    """Return scans (N,) bool that all attacks run on, and those that expensive ones run on too."""
    few = space_evenly(len(fold), budget.few_scans)
    masks = torch.zeros(2, len(fold), dtype=torch.bool)
    masks[0, few] = True
    masks[1, [few[i] for i in space_evenly(len(few), budget.checked)]] = True
    return masks[0], masks[1]


def measure_readings(
    pipeline: MedFedPure,
    fold: ScanDataset,
    attack: Attack,
    attacker: Attacker,
    systems: Sequence[System],
    batch_size: int = 32,
) -> dict[str, Reading]:
    """Return every system's reading of every scan, each attacked through its own classifier.

    Systems with one classifier meet the same adversarial examples.

    Raises:
        ValueError: a system's outputs are not numbers.
    """
    lanes = ParallelBatches(pipeline.device, batch_size)
    found: dict[str, Reading] = {}
    attacked = attack.knows == CLASSIFIER
    for surface in dict.fromkeys(s.surface if attacked else "" for s in systems):
        sharing = [s for s in systems if s.surface == surface or not attacked]
        alone = [s for s in sharing if s.policy != RANK]
        ranked = [s for s in sharing if s.policy == RANK]

        def read(scans: Batch, tries: list[Tensor], alone: list[System] = alone) -> Any:
            (x,) = tries
            return read_together(pipeline, alone, x, scans.seeds), (x, scans.seeds)

        generate = partial(attack.generate, attacker, sharing[0])
        parts = [
            (readings, part if ranked else None)
            for readings, part in evaluate(generate, read, fold, lanes, attack.key)
        ]
        found |= {s.name: join_readings([readings[s.name] for readings, _ in parts]) for s in alone}
        found |= {s.name: read_by_rank(pipeline, s, [part for _, part in parts]) for s in ranked}
    for name, reading in found.items():
        check_numbers(name, reading.probability)
    return {s.name: found[s.name] for s in systems}
