"""The ladder's attacks on one target, each stronger in its own way (A0 to A11).

Attacks through a whole system look at it in bfloat16 where the machine multiplies that natively;
what counts is how it reads their result in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.names import require_known
from bench.robustness.budgets import Budget
from bench.robustness.old_checks import in_corner
from bench.robustness.systems import ClassifyFn, Gate, Target
from core.attacks import APGD, PGD, DetectorAwarePGD, LowFrequency, Square
from core.attacks.apgd import RESTART
from core.attacks.base import LogitsFn, margin
from train.data.dataset import Batch
from train.device import autocast, autocast_logits

NOISE = "noise"
GRID = 28  # of the low-frequency perturbation


@dataclass(frozen=True)
class Attacker:
    """What an attack may use: the size of its ball, its budget, and models to transfer from."""

    eps: float
    budget: Budget
    others: Sequence[ClassifyFn] = ()

    def apgd(self, loss: str = "ce") -> APGD:
        """Auto-PGD within the budget."""
        b = self.budget
        return APGD(self.eps, b.steps, b.restarts, loss)


TryFn = Callable[[Attacker, Target, Batch], Iterator[Tensor]]  # attacked scans, one try each


@dataclass(frozen=True)
class Rung:
    """`fits` says of which targets the attack is one; `passes` how often it looks at a scan.

    `few`: on the budget's `few_scans` alone; `unnoticed`: also on scans that fell with an alarm;
    `alone`: it looks at the classifier alone, not at the whole of a system; `lent`: not even at
    that, but at other models.
    """

    name: str
    meaning: str
    tries: TryFn
    fits: Callable[[Target], bool] = lambda _: True
    few: bool = False
    unnoticed: bool = False
    alone: bool = False
    lent: bool = False
    passes: Callable[[Budget], int] = lambda b: b.steps * b.restarts


def _paper(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    yield PGD(a.eps, max(a.eps / 5, 1e-9), 7)(t.classify, s.x, s.y, s.seeds)


def _classifier_alone(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    attack = PGD(a.eps, max(2.5 * a.eps / a.budget.steps, 1e-9), a.budget.steps)
    for restart in range(a.budget.starts):
        yield attack(t.classify, s.x, s.y, [seed + RESTART * restart for seed in s.seeds])


def _transfer(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    for classify in a.others:
        yield a.apgd()(classify, s.x, s.y, s.seeds)


def seen(
    t: Target,
    s: Batch,
    path: str = "exact",
    *,
    draw: Callable[[], list[int]] | None = None,
    fine: bool = False,
) -> LogitsFn:
    """The whole system's logits as its attackers see them, the noise that of each scan's seed.

    `draw` gives other seeds for each call. With `fine` only the depth, a whole number, is found in
    low precision: where no gradient tells the way, rounding would.
    """

    def logits(z: Tensor) -> Tensor:
        with autocast(z.device):
            depth = t.depth(z) if t.depth else None
        seeds = draw() if draw else s.seeds
        if fine:
            return t.logits(z, seeds, path, depth)
        return autocast_logits(lambda q: t.logits(q, seeds, path, depth), z.device)(z)

    return logits


def _whole(loss: str = "ce", path: str = "exact") -> TryFn:
    def tries(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
        yield a.apgd(loss)(seen(t, s, path), s.x, s.y, s.seeds)

    return tries


def _each_step(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    assert t.estimates is not None
    estimates = t.estimates

    def logits(z: Tensor) -> Tensor:
        steps = [t.classify(x_0).log_softmax(1) for x_0 in estimates(z, s.seeds)]
        return torch.stack(steps).mean(0)  # its margin is the mean of the steps' margins

    yield a.apgd("margin")(autocast_logits(logits, s.x.device), s.x, s.y, s.seeds)


def look_of(t: Target, s: Batch) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A function: how far misread (B,), how far above tau (B,), features (B, F) of z."""
    gate = _gate(t)

    def look(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(z.device):
            logits, score, features = (part.float() for part in gate.read(z, s.seeds))
        return margin(logits, s.y), (score - gate.tau) / gate.span, features

    return look


def _under_gate(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    look = look_of(t, s)

    def hidden(z: Tensor) -> Tensor:
        lead, excess, _ = look(z)
        return as_logits(torch.minimum(lead, -excess), s.y)

    yield a.apgd("margin")(hidden, s.x, s.y, s.seeds)
    (start,) = _paper(a, t, s)
    yield DetectorAwarePGD(a.eps, a.budget.steps)(lambda z: look(z)[:2], s.x, start)


def _beside_gate(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    """Three more ways to deal with a detector; each is read by the whole system as it is."""
    look = look_of(t, s)
    with torch.no_grad():
        wanted = look(s.x)[2]

    def deep(z: Tensor) -> Tensor:
        lead, excess, _ = look(z)
        return torch.minimum(lead, excess)

    def alike(z: Tensor) -> Tensor:
        lead, _, features = look(z)
        return lead - (features - wanted).square().mean(1)

    for goal in (deep, alike):
        yield a.apgd("margin")(lambda z, g=goal: as_logits(g(z), s.y), s.x, s.y, s.seeds)
    steps = 2 * a.budget.steps
    turn = 0

    def alternating(z: Tensor) -> Tensor:  # the last step is the system's
        nonlocal turn
        turn += 1
        lead, excess, _ = look(z)
        return as_logits(-excess if turn % 2 else lead, s.y)

    yield PGD(a.eps, max(2.5 * a.eps / steps, 1e-9), steps)(alternating, s.x, s.y, s.seeds)


def _square(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    attack = Square(a.eps, a.budget.queries, until_wrong=False)
    yield attack(seen(t, s, fine=True), s.x, s.y, s.seeds)


def _smooth(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    attack = LowFrequency(a.eps, GRID, a.budget.steps)
    for restart in range(a.budget.restarts):
        seeds = [seed + RESTART * restart for seed in s.seeds]
        yield attack(seen(t, s), s.x, s.y, seeds)


def _noise(a: Attacker, t: Target, s: Batch) -> Iterator[Tensor]:
    yield in_corner(s.x, a.eps, s.seeds)


def _gate(t: Target) -> Gate:
    if t.gate is None:
        raise ValueError(f"{t.name} has no detector to attack")
    return t.gate


def as_logits(lead: Tensor, y: Tensor) -> Tensor:
    """Two logits whose margin is `lead` (B,) and whose true one is 0."""
    other = F.one_hot(1 - y, 2) * lead[:, None]
    return other.to(lead)


def _has_front(t: Target) -> bool:
    return t.front is not None


def _has_gate(t: Target) -> bool:
    return t.gate is not None


def _is_purifier(t: Target) -> bool:
    return t.is_purifier


RUNGS = (
    Rung(NOISE, "every pixel moves by eps, up or down at random: no attack", _noise,
         passes=lambda _: 1),
    Rung("A0", "the paper's PGD-7, random start, classifier alone", _paper, alone=True,
         passes=lambda _: 7),
    Rung("A1", "PGD on the classifier alone, the budget's steps and starts", _classifier_alone,
         alone=True, passes=lambda b: b.steps * b.starts),
    Rung("A2", "transfer: APGD on the plain classifier, and on other hospitals' mixtures",
         _transfer, alone=True, lent=True, passes=lambda b: b.steps * b.restarts * (1 + b.others)),
    Rung("A3", "APGD on the cross-entropy, exact gradients through the whole system", _whole()),
    Rung("A4", "the same on the margin of the logits", _whole("margin")),
    Rung("A5", "BPDA: whole system forward, the identity backward through what stands in front",
         _whole(path="identity"), _has_front),
    Rung("A6", "backward through the predicted noise alone", _whole(path="noise"), _is_purifier),
    Rung("A7", "the mean margin of every step's estimate of the clean scan", _each_step,
         lambda t: t.estimates is not None),
    Rung("A9", "gate-aware: misread and not flagged, of all scans that no attack has got there, by "
         "APGD on whichever is further off, and along both gradients at once as the file's 8 bits "
         "hold them", _under_gate, _has_gate, unnoticed=True,
         passes=lambda b: b.steps * (b.restarts + 1)),
    Rung("A9b", "gate-aware, three more ways: misread although flagged; misread with the clean "
         "scan's features; steps in turn against system and detector", _beside_gate, _has_gate,
         few=True, passes=lambda b: b.steps * (2 * b.restarts + 2)),
    Rung("A10", "Square: no gradient, the system's logits asked", _square, few=True,
         passes=lambda b: b.queries),
    Rung("A11", f"APGD's budget on a perturbation of {GRID} x {GRID}, enlarged", _smooth),
)  # fmt: skip

ORDER = [rung.name for rung in RUNGS]
LADDER = [f"A{i}" for i in range(12)]  # A8, which knows the noise, is part of `randomness`


def rungs_named(names: Sequence[str]) -> list[Rung]:
    """The rungs of these names, in the ladder's order, after what every attack is compared with.

    Raises:
        ValueError: an unknown one.
    """
    require_known("row", names, ["clean", *LADDER])
    return [rung for rung in RUNGS if rung.name.rstrip("b") in (NOISE, *names)]
