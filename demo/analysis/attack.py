"""Attack settings, checked, and the attack that they describe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.attacks import FGSM, PGD, BisectionStep, MinimalPGD, Step, adaptive_logits
from core.attacks.base import LogitsFn

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

KINDS = ("pgd", "fgsm", "none")
NORMS = ("linf", "l2")
AIMS = ("plain", "mixture", "defence")
TRUTHS = ("unknown", "no tumour", "tumour")  # position - 1 is the class
MAX_EPS = {"linf": 0.06, "l2": 12.0}
MAX_STEPS = 40
MIN_STEPS = 7  # of each attack in the search for the smallest eps


@dataclass(frozen=True)
class AttackSettings:
    """Budget and target of an attack; `eps` and `alpha` in [0, 1] brightness, or as L2 lengths."""

    kind: str = "pgd"
    norm: str = "linf"
    eps: float = 0.015
    alpha: float = 0.003
    steps: int = 7
    aim: str = "plain"
    truth: str = "unknown"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("norm", NORMS), ("aim", AIMS), ("truth", TRUTHS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if not 0 <= self.eps <= MAX_EPS[self.norm]:
            raise ValueError(
                f"eps must be in [0, {MAX_EPS[self.norm]}] for {self.norm}, got {self.eps}"
            )
        if not 0 < self.alpha <= MAX_EPS[self.norm]:
            raise ValueError(
                f"alpha must be above 0 and at most {MAX_EPS[self.norm]}, got {self.alpha}"
            )
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps must be in [1, {MAX_STEPS}], got {self.steps}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, {2**31 - 1}], got {self.seed}")

    @property
    def num_steps(self) -> int:
        """Gradient steps that the attack takes: 0 for none, 1 for FGSM."""
        return {"none": 0, "fgsm": 1, "pgd": self.steps}[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings for the report."""
        return asdict(self)


def iterate_attack(system: MedFedPure, scan: Tensor, settings: AttackSettings) -> Iterator[Step]:
    """Attack one scan (1, 224, 224); yield each step, the last one with the 8-bit result.

    The attack moves away from the true class if the visitor gave it, else from the attacked model's
    own class of the clean scan.
    """
    logits_fn, x, y = _prepare(system, scan, settings)
    if settings.kind == "fgsm":
        return FGSM(settings.eps, settings.norm, eight_bit=True).trajectory(logits_fn, x, y)
    attack = PGD(settings.eps, settings.alpha, settings.steps, settings.norm, eight_bit=True)
    return attack.trajectory(logits_fn, x, y, seeds=[settings.seed])


def find_smallest_eps(
    system: MedFedPure, scan: Tensor, settings: AttackSettings
) -> Iterator[BisectionStep]:
    """Search for the smallest eps at which PGD changes the attacked model's output.

    Norm, steps, aim and truth are those of `settings`.
    """
    top = MAX_EPS[settings.norm]
    search = MinimalPGD(top, top / 256, max(settings.num_steps, MIN_STEPS), settings.norm)
    return search.search(*_prepare(system, scan, settings))


def _prepare(
    system: MedFedPure, scan: Tensor, settings: AttackSettings
) -> tuple[LogitsFn, Tensor, Tensor]:
    """Return the attacked function, the scan as a batch of one, and the label to move away from."""
    x = scan[None].to(system.device)
    logits_fn = _choose_target(system, settings)
    if settings.truth == "unknown":
        with torch.no_grad():
            return logits_fn, x, logits_fn(x).argmax(1)
    return logits_fn, x, torch.tensor([TRUTHS.index(settings.truth) - 1], device=x.device)


def _choose_target(system: MedFedPure, settings: AttackSettings) -> LogitsFn:
    """Return the logits that the attacker uses; the defence is sampled with other noise."""
    if settings.aim == "plain":
        return system.plain_logits
    if settings.aim == "mixture":
        return system.classifier_logits
    # `seed` itself is the reading's
    return adaptive_logits(system, itertools.count(settings.seed + 1))
