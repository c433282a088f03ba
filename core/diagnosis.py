"""Result of reading one scan, with every intermediate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Diagnosis:
    """All results of one reading: for research and teaching, not a medical finding."""

    scan: Tensor  # (1, H, W)
    error_map: Tensor  # (H, W) squared reconstruction error of the autoencoder per pixel
    patch_error: Tensor  # (H / p, W / p) its mean over each patch
    scores: dict[str, float]  # every named detector score
    score: float
    score_name: str
    tau: float
    flagged: bool
    confidence: float  # share of clean validation scans that scored lower
    novelty: float  # log-odds that the picture is no brain MRI slice as they were learned
    novelty_limit: float
    t_star: int
    purified: Tensor  # (1, H, W); the scan itself where t_star is 0
    attention: Tensor  # (K,)
    expert_probabilities: Tensor  # (K,) tumour, each expert on the purified scan
    tumour_probability: float  # the defended reading
    tumour_probability_undefended: float  # the plain classifier on the scan as it came
    tumour_probability_unpurified: float  # the trained mixture on the scan as it came
    timings_ms: dict[str, float]
    seed: int

    @property
    def can_judge(self) -> bool:
        """False where the picture does not look like brain MRI: the outputs mean nothing."""
        return self.novelty <= self.novelty_limit

    @property
    def is_tumour(self) -> bool:
        """The defended output at the operating point chosen on validation scans."""
        return self.tumour_probability >= 0.5

    def to_dict(self) -> dict[str, Any]:
        """All numbers without the pictures, ready for JSON."""
        pictures = {"scan", "error_map", "patch_error", "purified"}
        numbers = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in pictures}
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in numbers.items()}
        return {"can_judge": self.can_judge, **plain}
