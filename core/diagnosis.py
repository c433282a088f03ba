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
    scores: dict[str, float]  # every named detector score
    contributions: dict[str, float]  # of each measurement to the fused score, in its points
    usual_score: float  # of a scan like clean training scans; plus contributions: the fused score
    evidence: dict[str, Tensor]  # (H / p, W / p) of each measurement: see `Detector.locate`
    score: float
    score_name: str
    tau: float
    flagged: bool
    confidence: float  # share of clean validation scans that scored lower, to about a tenth
    novelty: float  # log-odds that the picture is not a brain MRI slice
    novelty_limit: float
    t_star: int
    purified: Tensor  # (1, H, W); the scan itself where t_star is 0
    attention: Tensor  # (K,)
    expert_probabilities: Tensor  # (K,) tumour, each expert on `scan_read`
    expert_shares: Tensor  # (K,) of the log-odds of `tumour_probability`
    operating_point: float  # plus the shares: the log-odds
    overall_share: float  # part of the shares' sum that no tumour map holds
    expert_maps: Tensor | None  # (K, h, w) probability of a tumour in each cell; None: no maps
    tumour_map: Tensor | None  # (h, w) weighted by the attention, of `scan_read`
    tumour_probability: float  # the answer: trained mixture on `scan_read`
    tumour_probability_undefended: float  # plain classifier on the scan itself
    tumour_probability_unpurified: float  # trained mixture on the scan itself
    tumour_probability_purified: float  # trained mixture on the purified scan
    policy: str  # of purification, of `core.purifier.POLICIES`
    stability_radius: float  # within which an answer that flips counts as not stable
    # no flip was found within it, nor does purifying turn the answer; None: not tried, or it
    # cannot judge
    stable: bool | None
    stable_radius: float | None  # largest radius tried without a flip, in [0, 1] pixels; 0: none
    flip_distance: float | None  # of the nearest flip that was found; None: none, or not tried
    flipped: Tensor | None  # (1, H, W) that flip
    timings_ms: dict[str, float]
    seed: int

    @property
    def can_judge(self) -> bool:
        """False for a picture unlike brain MRI: the outputs have no meaning then."""
        return self.novelty <= self.novelty_limit

    @property
    def scan_read(self) -> Tensor:
        """The scan (1, H, W) that the answer is of: purified, or under policy `picture` not."""
        return self.scan if self.policy == "picture" else self.purified

    @property
    def purifying_turns(self) -> bool:
        """True if the answer would be another without purifying; never under policy `picture`."""
        return self.is_tumour != (self.tumour_probability_unpurified >= 0.5)

    @property
    def is_tumour(self) -> bool:
        """True if the answer's probability reaches the operating point."""
        return self.tumour_probability >= 0.5

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers without the pictures, ready for JSON."""
        pictures = {"scan", "error_map", "evidence", "purified", "expert_maps", "tumour_map",
                    "flipped"}  # fmt: skip
        numbers = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in pictures}
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in numbers.items()}
        return {"can_judge": self.can_judge, "purifying_turns": self.purifying_turns, **plain}
