"""Analysis as data: the scan, the attack on it, and both readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from core.attacks import Step
from core.diagnosis import Diagnosis
from core.interval import Certificate
from demo.analysis.attack import AttackSettings
from demo.analysis.explanation import CleanScores

OPTIONS = ("score", "policy", "d")  # of the defence, in an analysis' `info`


@dataclass(frozen=True)
class HospitalReading:
    """Output of one hospital's system for a scan."""

    hospital: int
    can_judge: bool
    tumour_probability: float
    flagged: bool
    score: float
    tau: float
    t_star: int


@dataclass(frozen=True)
class Analysis:
    """Analysis of one scan, complete or running; parts that are not ready are None."""

    scan: Tensor  # (1, 224, 224)
    settings: AttackSettings
    steps: tuple[Step, ...] = ()  # of the attack so far, the clean scan first
    clean: Diagnosis | None = None
    attacked: Diagnosis | None = None
    attack_ms: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)  # of the system, with its options
    sides: tuple[int, ...] = ()  # of each expert's input, in pixels
    doubts: tuple[str, ...] = ()  # about the file, one sentence each
    volume_answer: str = ""  # of all slices of the file, none attacked; empty unless all are read
    clean_scores: CleanScores | None = None
    certificates: Mapping[str, Certificate] = field(default_factory=dict)  # by the reading's name
    no_certificates: str = ""  # why there is none, if the certified classifier is damaged
    # by the reading's name
    elsewhere: Mapping[str, tuple[HospitalReading, ...]] = field(default_factory=dict)

    @property
    def hospital(self) -> int | None:
        """Number of the hospital whose system reads; None for weights without hospitals."""
        return self.info.get("hospital")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the defence, as for `MedFedPure.with_options`."""
        return {name: self.info.get(name) for name in OPTIONS}

    @property
    def attacked_scan(self) -> Tensor | None:
        """Scan (1, 224, 224) after the last step of the attack so far."""
        return self.steps[-1].x_adv[0].cpu() if self.steps else None

    @property
    def readings(self) -> list[tuple[str, Diagnosis]]:
        """Names and results of the finished readings."""
        both = (("clean", self.clean), ("attacked", self.attacked))
        return [(name, diagnosis) for name, diagnosis in both if diagnosis is not None]

    @property
    def change(self) -> tuple[float, int, float]:
        """Share of pixels that the attack changed, its largest change in levels, its L2 length."""
        if self.attacked_scan is None:
            return 0.0, 0, 0.0
        delta = (self.attacked_scan - self.scan) * 255
        share = float((delta.abs() > 0.5).float().mean())
        return share, round(float(delta.abs().max())), float(delta.norm()) / 255
