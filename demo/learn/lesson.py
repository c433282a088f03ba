"""Computations of the lesson: a synthetic scan through attack and defence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.attacks import Step
from core.diffusion import seeded_noise, to_model, to_pixels
from demo.analysis.attack import AttackSettings, iterate_attack
from demo.analysis.explanation import CleanScores, HeatMap, collect_clean_scores, compute_heat_map

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure

STEPS = 7  # of PGD
MAX_LEVELS = 8  # largest eps, in levels of 255
MAX_T = 200  # largest purification depth, in diffusion steps


@dataclass(frozen=True)
class Lesson:
    """Results computed so far; those still to come are None or empty."""

    scan: Tensor  # (1, H, W) in [0, 1]
    tumour: bool  # drawn with a tumour
    clean: Diagnosis | None = None
    levels: int = 4  # eps, in levels of 255
    steps: tuple[Step, ...] = ()
    attacked: Diagnosis | None = None
    clean_scores: CleanScores | None = None  # of the detector, once `attacked` is there
    heat_map: HeatMap | None = None  # of `clean`, once it was asked for

    @property
    def is_attacked(self) -> bool:
        """True once all steps of the attack are computed."""
        return len(self.steps) == STEPS + 1

    @property
    def x_adv(self) -> Tensor:
        """The scan after the last computed step of the attack, (1, H, W)."""
        return self.steps[-1].x_adv[0].cpu()


@dataclass(frozen=True)
class Purification:
    """The attacked scan purified at one depth."""

    t_star: int
    noised: Tensor  # (1, H, W), shown clipped to [0, 1]
    purified: Tensor  # (1, H, W)
    plain: float  # tumour probability of the plain classifier on the purified scan
    mixture: float  # tumour probability of the mixture on the purified scan


def read_clean(system: MedFedPure, scan: Tensor, tumour: bool) -> Lesson:
    """Step 1: read the clean scan."""
    return Lesson(scan, tumour, clean=system.read(scan))


def attack(system: MedFedPure, lesson: Lesson, levels: int) -> Iterator[Lesson]:
    """Step 2: yield the lesson after each step of PGD on the plain classifier; drop later results.

    Raises:
        ValueError: levels out of range.
    """
    eps = levels / 255
    settings = AttackSettings(eps=eps, alpha=max(eps / 5, 1e-3), steps=STEPS)
    lesson = replace(lesson, levels=levels, steps=(), attacked=None, clean_scores=None)
    for step in iterate_attack(system, lesson.scan, settings):
        lesson = replace(lesson, steps=(*lesson.steps, step))
        yield lesson


def detect(system: MedFedPure, lesson: Lesson) -> Lesson:
    """Steps 3 and 5: read and explain the attacked scan; attack it first if needed."""
    if lesson.attacked is not None:
        return lesson
    if not lesson.is_attacked:
        *_, lesson = attack(system, lesson, lesson.levels)
    attacked = system.read(lesson.x_adv)
    scores = collect_clean_scores(system, attacked.score_name)
    return replace(lesson, attacked=attacked, clean_scores=scores)


def map_heat(system: MedFedPure, lesson: Lesson) -> Lesson:
    """Step 6: compute Grad-CAM of the clean scan's reading."""
    if lesson.heat_map is not None or lesson.clean is None:
        return lesson
    return replace(lesson, heat_map=compute_heat_map(system, lesson.clean))


def purify(system: MedFedPure, lesson: Lesson, t_star: int) -> tuple[Lesson, Purification]:
    """Step 4: noise the attacked scan up to t_star and denoise it, as the pipeline does.

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
