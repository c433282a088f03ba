"""The attack suite: one line for each attack, from the paper's to detector-aware ones.

Attacks on a whole system compute its gradient in bfloat16 where the machine multiplies that
natively; their adversarial examples are always read in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.options import require_known
from bench.robustness.systems import ClassifyFn, System
from core.attacks import APGD, PGD, DetectorAwarePGD, LowFrequency, Square, paper_attack
from core.attacks.apgd import RESTART
from core.attacks.base import LogitsFn, margin, noise_in_ball
from train.data.dataset import Batch
from train.device import autocast, autocast_logits

NOISE = "noise"
KNOWN_NOISE = "A8"  # not in the suite: measured with fresh noise, see `randomness`
GRID = 28  # side of the low-frequency perturbation
# what an attack uses of the system that it attacks
NOTHING, SURROGATES, CLASSIFIER, DEFENCE, DETECTOR = (
    "nothing", "surrogates", "classifier", "defence", "detector",
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """Cost of one evaluation. `eot` noise draws are averaged where a system is stochastic."""

    scans: int
    steps: int  # of APGD and of every attack that follows a gradient
    restarts: int
    starts: int  # restarts of PGD on the classifier alone
    eot: int
    queries: int  # of Square
    few_scans: int  # of expensive attacks; all attacks run on them, so that they can be compared
    curve_scans: int  # at each eps of the curve
    others: int  # hospitals whose mixtures are surrogate models of A2
    checked: int  # scans of the self-checks; expensive attacks always run on them too


COMMITTED = "cpu"  # the budget whose result file has no budget in its name
BUDGETS = {
    "smoke": Budget(16, 10, 1, 1, 2, 50, 8, 8, 1, 8),
    "cpu": Budget(500, 50, 1, 5, 4, 1000, 64, 48, 2, 16),
    "full": Budget(600, 100, 2, 5, 8, 5000, 200, 200, 9, 32),
}


@dataclass(frozen=True)
class Attacker:
    """Resources of an attack: radius of its ball, budget, surrogate models."""

    eps: float
    budget: Budget = BUDGETS[COMMITTED]
    surrogates: Sequence[ClassifyFn] = ()

    def apgd(self, loss: str = "ce") -> APGD:
        """Return Auto-PGD within the budget."""
        return APGD(self.eps, self.budget.steps, self.budget.restarts, loss)

    def pgd(self, steps: int) -> PGD:
        """Return PGD whose steps add up to 2.5 times the radius."""
        return PGD(self.eps, max(2.5 * self.eps / steps, 1e-9), steps)


Algorithm = Callable[..., Tensor]  # an attack of core.attacks: (logits_fn, x, y, seeds) -> x_adv
ExamplesFn = Callable[[Attacker, System, Batch], Iterator[Tensor]]  # a tensor for each try


@dataclass(frozen=True)
class Attack:
    """One attack: its key in result files and `--rows`, its title in tables, what it knows.

    `algorithm` attacks the classifier, or the whole system where `knows` is 'defence'; attacks of
    several tries give `examples` in its place. `expensive` ones run on a subset of the scans.
    """

    key: str
    title: str
    meaning: str
    knows: str
    algorithm: Callable[[Attacker], Algorithm] | None = None
    examples: ExamplesFn | None = None
    fits: Callable[[System], bool] = lambda _: True
    expensive: bool = False

    @property
    def row(self) -> str:
        """Value of `--rows` that selects it: variants such as A9b come with A9."""
        return self.key.rstrip("b")

    @property
    def is_shared(self) -> bool:
        """True if systems with one classifier meet the same adversarial examples."""
        return self.knows in (CLASSIFIER, SURROGATES)

    def fits_to(self, system: System) -> bool:
        """Return whether it can attack a system: detector-aware attacks need a detector."""
        return self.fits(system) and (self.knows != DETECTOR or system.detector is not None)

    def generate(self, attacker: Attacker, system: System, scans: Batch) -> Iterator[Tensor]:
        """Yield adversarial examples (B, C, H, W), one tensor for each try."""
        if self.examples:
            yield from self.examples(attacker, system, scans)
        elif self.algorithm:
            whole = self.knows == DEFENCE
            model = bfloat16_logits(system, scans) if whole else system.classify
            yield self.algorithm(attacker)(model, scans.x, scans.y, scans.seeds)
        else:
            yield scans.x


def bfloat16_logits(
    system: System,
    scans: Batch,
    path: str = "exact",
    *,
    draw: Callable[[], list[int]] | None = None,
    fine: bool = False,
) -> LogitsFn:
    """Return the whole system's logits as attacks see them, with the noise of each scan's seed.

    `draw` gives other seeds for each call. With `fine` only the depth, a whole number, is computed
    in low precision: for attacks without gradients, which rounding would mislead.
    """

    def logits(z: Tensor) -> Tensor:
        with autocast(z.device):
            depth = system.depth(z) if system.depth else None
        seeds = draw() if draw else scans.seeds
        if fine:
            return system.logits(z, seeds, path, depth)
        return autocast_logits(lambda q: system.logits(q, seeds, path, depth), z.device)(z)

    return logits


def view_detector(
    system: System, scans: Batch
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function of z: margin of misclassification (B,), score above tau (B,), features."""
    detector = system.detector
    if detector is None:
        raise ValueError(f"{system.name} has no detector to attack")

    def look(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(z.device):
            reading = detector.read(z, scans.seeds)
            logits, score, features = (part.float() for part in reading)
        return margin(logits, scans.y), (score - detector.tau) / detector.span, features

    return look


def as_logits(lead: Tensor, y: Tensor) -> Tensor:
    """Return two logits whose margin is `lead` (B,) and whose true one is 0."""
    other = F.one_hot(1 - y, 2) * lead[:, None]
    return other.to(lead)


def random_corner(x: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
    """Return scans with every pixel moved by eps, up or down at random."""
    return (x + eps * noise_in_ball(x, 1.0, "linf", seeds).sign()).clamp(0, 1)


def _noise(a: Attacker, _: System, s: Batch) -> Iterator[Tensor]:
    yield random_corner(s.x, a.eps, s.seeds)


def _restart_pgd(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    attack = a.pgd(a.budget.steps)
    for restart in range(a.budget.starts):
        yield attack(t.classify, s.x, s.y, [seed + RESTART * restart for seed in s.seeds])


def _transfer(a: Attacker, _: System, s: Batch) -> Iterator[Tensor]:
    for classify in a.surrogates:
        yield a.apgd()(classify, s.x, s.y, s.seeds)


def _through(path: str) -> ExamplesFn:
    def examples(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
        yield a.apgd()(bfloat16_logits(t, s, path), s.x, s.y, s.seeds)

    return examples


def _each_step(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    assert t.estimates is not None
    estimates = t.estimates

    def logits(z: Tensor) -> Tensor:
        steps = [t.classify(x_0).log_softmax(1) for x_0 in estimates(z, s.seeds)]
        return torch.stack(steps).mean(0)  # its margin is the mean of the steps' margins

    yield a.apgd("margin")(autocast_logits(logits, s.x.device), s.x, s.y, s.seeds)


def _evade_detector(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    look = view_detector(t, s)

    def undetected(z: Tensor) -> Tensor:
        lead, excess, _ = look(z)
        return as_logits(torch.minimum(lead, -excess), s.y)

    yield a.apgd("margin")(undetected, s.x, s.y, s.seeds)
    start = paper_attack(a.eps)(t.classify, s.x, s.y, s.seeds)
    yield DetectorAwarePGD(a.eps, a.budget.steps)(lambda z: look(z)[:2], s.x, start)


def _evade_detector_3(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    look = view_detector(t, s)
    with torch.no_grad():
        clean_features = look(s.x)[2]

    def although_flagged(z: Tensor) -> Tensor:
        lead, excess, _ = look(z)
        return torch.minimum(lead, excess)

    def clean_looking(z: Tensor) -> Tensor:
        lead, _, features = look(z)
        return lead - (features - clean_features).square().mean(1)

    for goal in (although_flagged, clean_looking):
        yield a.apgd("margin")(lambda z, g=goal: as_logits(g(z), s.y), s.x, s.y, s.seeds)
    calls = 0

    def alternating(z: Tensor) -> Tensor:  # the last step is against the classifier
        nonlocal calls
        calls += 1
        lead, excess, _ = look(z)
        return as_logits(-excess if calls % 2 else lead, s.y)

    yield a.pgd(2 * a.budget.steps)(alternating, s.x, s.y, s.seeds)


def _square(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    attack = Square(a.eps, a.budget.queries, until_wrong=False)
    yield attack(bfloat16_logits(t, s, fine=True), s.x, s.y, s.seeds)


def _low_frequency(a: Attacker, t: System, s: Batch) -> Iterator[Tensor]:
    attack = LowFrequency(a.eps, GRID, a.budget.steps)
    for restart in range(a.budget.restarts):
        seeds = [seed + RESTART * restart for seed in s.seeds]
        yield attack(bfloat16_logits(t, s), s.x, s.y, seeds)


RANDOM_NOISE = Attack(NOISE, "random noise", "every pixel moved by eps, up or down at random",
                      NOTHING, examples=_noise)  # fmt: skip
CLEAN = Attack("clean", "no attack", "scans as they are", NOTHING)
A0 = Attack("A0", "PGD-7 (paper)", "the paper's attack: PGD-7, random start, on the classifier",
            CLASSIFIER, lambda a: paper_attack(a.eps))  # fmt: skip
A0_8BIT = Attack("A0-8bit", "PGD-7 (paper), 8 bits", "PGD-7 rounded to 8 bits", CLASSIFIER,
                 lambda a: paper_attack(a.eps, eight_bit=True))  # fmt: skip
ATTACKS: tuple[Attack, ...] = (
    RANDOM_NOISE,
    A0,
    Attack("A1", "PGD with restarts", "PGD on the classifier with more steps and random restarts",
           CLASSIFIER, examples=_restart_pgd),
    Attack("A2", "transfer APGD", "APGD on the plain classifier and on other hospitals' mixtures",
           SURROGATES, examples=_transfer),
    Attack("A3", "APGD-CE", "APGD on the cross-entropy, exact gradients of the whole system",
           DEFENCE, lambda a: a.apgd()),
    Attack("A4", "APGD-margin", "APGD on the margin of the logits of the whole system", DEFENCE,
           lambda a: a.apgd("margin")),
    Attack("A5", "BPDA", "APGD, the defence in front of the classifier differentiated as the "
           "identity", DEFENCE, examples=_through("identity"),
           fits=lambda t: t.front is not None),
    Attack("A6", "noise-gradient", "APGD on the gradient of the predicted noise alone", DEFENCE,
           examples=_through("noise"), fits=lambda t: t.is_purifier),
    Attack("A7", "per-step estimates", "APGD on the mean margin of the estimates of all purifier "
           "steps", DEFENCE, examples=_each_step, fits=lambda t: t.estimates is not None),
    Attack("A9", "adaptive, detector-aware", "misclassified and not flagged: APGD on the smaller "
           "of both margins, then both gradients at once on the 8-bit scan", DETECTOR,
           examples=_evade_detector),
    Attack("A9b", "adaptive, 3 variants", "misclassified although flagged; misclassified with the "
           "clean scan's features; alternating steps against classifier and detector", DETECTOR,
           examples=_evade_detector_3, expensive=True),
    Attack("A10", "Square", "queries of the system's logits, no gradient", DEFENCE,
           examples=_square, expensive=True),
    Attack("A11", "low-frequency", f"perturbation of {GRID} x {GRID} pixels, enlarged", DEFENCE,
           examples=_low_frequency),
)  # fmt: skip


def attack_order() -> list[str]:
    """Return the keys of the suite's attacks, in its order."""
    return [attack.key for attack in ATTACKS]


def row_names() -> list[str]:
    """Return the values of `--rows` that name attacks, A8 at its place."""
    names = [a.row for a in ATTACKS if a.key not in (NOISE, "A9b")]
    at = names.index("A9") if "A9" in names else len(names)
    return [*names[:at], KNOWN_NOISE, *names[at:]]


def attack_titles() -> dict[str, str]:
    """Return the title of every attack by its key."""
    known = {a.key: a.title for a in (CLEAN, A0_8BIT, *ATTACKS)}
    return {**known, KNOWN_NOISE: "known noise"}


def attacks_named(names: Sequence[str]) -> list[Attack]:
    """Return the suite's attacks of these rows, in its order, after random noise.

    Raises:
        ValueError: a name is unknown.
    """
    require_known("row", names, [CLEAN.key, *row_names()])
    return [attack for attack in ATTACKS if attack.row in (NOISE, *names)]


def paper_rows(names: Sequence[str]) -> list[Attack]:
    """Return the rows that are measured on all scans; A0 comes with its 8-bit form.

    Raises:
        ValueError: a name is unknown.
    """
    rows = {attack.key: attack for attack in (CLEAN, A0, A0_8BIT)}
    require_known("row", names, rows)
    wanted = set(names) | ({A0_8BIT.key} if A0.key in names else set())
    return [attack for key, attack in rows.items() if key in wanted]
