"""One analysis as data: the scan, the attack on it, and both readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from core.attacks import Step
from core.diagnosis import Diagnosis
from demo.analysis.attack import AttackSettings
from demo.analysis.explanation import Evidence
from demo.explore.hospitals_view import AtHospital
from demo.rendering import wording


@dataclass(frozen=True)
class Analysis:
    """What is known so far; parts that are not ready are None."""

    scan: Tensor  # (1, 224, 224)
    settings: AttackSettings
    steps: tuple[Step, ...] = ()  # of the attack so far, the clean scan first
    clean: Diagnosis | None = None
    attacked: Diagnosis | None = None
    attack_ms: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Evidence] = field(default_factory=dict)  # by the readings' names
    elsewhere: Mapping[str, tuple[AtHospital, ...]] = field(default_factory=dict)  # as well

    @property
    def hospital(self) -> int | None:
        """Whose system reads; None where the weights are not a federation's."""
        return self.info.get("hospital")

    @property
    def attacked_scan(self) -> Tensor | None:
        """The scan (1, 224, 224) as far as the attack has come."""
        return self.steps[-1].x_adv[0].cpu() if self.steps else None

    @property
    def readings(self) -> list[tuple[str, Diagnosis]]:
        """The readings there are, by name."""
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

    def report(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        changed, largest, length = self.change
        elsewhere = {name: [asdict(at) for at in all_] for name, all_ in self.elsewhere.items()}
        return {
            "notice": wording.NOTICE,
            "attack": {
                **self.settings.to_dict(),
                "changed_share": changed,
                "largest_change_levels": largest,
                "l2_length": length,
                "ms": self.attack_ms,
            },
            "clean": self.clean.to_dict() if self.clean else None,
            "attacked": self.attacked.to_dict() if self.attacked else None,
            "system": self.info,
        } | ({"at_each_hospital": elsewhere} if elsewhere else {})
