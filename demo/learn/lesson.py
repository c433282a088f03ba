"""The lesson's computations: one synthetic scan through attack and defence, nothing canned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.attacks import Step
from core.diffusion import seeded_noise, to_model, to_pixels
from demo.analysis.attack import AttackSettings, trajectory
from demo.analysis.explanation import Evidence, evidence

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure

STEPS = 7  # of the attack
MAX_LEVELS = 8  # of 255, the largest attack that the lesson offers
MAX_T = 200  # the deepest purification that the lesson offers


@dataclass(frozen=True)
class Lesson:
    """What the student has computed so far; what is not computed yet is None or empty."""

    scan: Tensor  # (1, H, W) in [0, 1]
    tumour: bool  # as it was drawn
    clean: Diagnosis | None = None
    levels: int = 4  # what the attacker may change a pixel by, of 255
    steps: tuple[Step, ...] = ()
    attacked: Diagnosis | None = None
    evidence: Evidence | None = None  # of the attacked scan's reading

    @property
    def is_attacked(self) -> bool:
        """Whether the attack has come to its end."""
        return len(self.steps) == STEPS + 1

    @property
    def x_adv(self) -> Tensor:
        """The attacked scan as far as the attack has come, (1, H, W)."""
        return self.steps[-1].x_adv[0].cpu()


@dataclass(frozen=True)
class Purification:
    """One depth tried on the attacked scan."""

    t_star: int
    noised: Tensor  # (1, H, W), shown clipped to [0, 1]
    purified: Tensor  # (1, H, W)
    plain: float  # tumour probability of the plain classifier on the purified scan
    mixture: float  # the same of the mixture


def read_clean(system: MedFedPure, scan: Tensor, tumour: bool) -> Lesson:
    """Step 1: the clean scan, read."""
    return Lesson(scan, tumour, clean=system.read(scan))


def attack(system: MedFedPure, lesson: Lesson, levels: int) -> Iterator[Lesson]:
    """Step 2: PGD on the plain classifier, a step at a time; what came after it is forgotten.

    Raises:
        ValueError: levels is too many, or below 0.
    """
    eps = levels / 255
    settings = AttackSettings(eps=eps, alpha=max(eps / 5, 1e-3), steps=STEPS)
    lesson = replace(lesson, levels=levels, steps=(), attacked=None, evidence=None)
    for step in trajectory(system, lesson.scan, settings):
        lesson = replace(lesson, steps=(*lesson.steps, step))
        yield lesson


def detect(system: MedFedPure, lesson: Lesson) -> Lesson:
    """Steps 3 and 5: the attacked scan, read and explained; attacked first if it was not yet."""
    if lesson.attacked is not None:
        return lesson
    if not lesson.is_attacked:
        *_, lesson = attack(system, lesson, lesson.levels)
    attacked = system.read(lesson.x_adv)
    return replace(lesson, attacked=attacked, evidence=evidence(system, attacked))


def purify(system: MedFedPure, lesson: Lesson, t_star: int) -> tuple[Lesson, Purification]:
    """Step 4: the attacked scan noised to t_star and denoised, as the system would.

    Raises:
        ValueError: t_star is outside [0, MAX_T].
    """
    if not 0 <= t_star <= MAX_T:
        raise ValueError(f"the depth must be in [0, {MAX_T}], got {t_star}")
    lesson = detect(system, lesson)
    x = lesson.x_adv[None].to(system.device)
    t = torch.tensor([t_star], device=x.device)
    with torch.no_grad():
        x_pur = system.purify(x, t, [0])
        plain, mixture = (
            float(f(x_pur).exp()[0, 1]) for f in (system.plain_logits, system.classifier_logits)
        )
        noise = seeded_noise(x.shape[1:], [0]).to(x)
        x_t = to_pixels(system.purifier.diffusion.q_sample(to_model(x), t, noise)) if t_star else x
    return lesson, Purification(t_star, x_t[0].clamp(0, 1).cpu(), x_pur[0].cpu(), plain, mixture)
