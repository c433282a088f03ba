"""The systems that stand side by side in every row, cut from one set of weights.

Each names the classifier that an attacker sees and the purification in front of it, so that an
adversarially trained expert cannot hide a purifier that does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.names import require_known
from bench.summaries import Reading
from core.pipeline import MedFedPure


@dataclass(frozen=True)
class System:
    """`surface`: the classifier that the paper's attacker sees; `policy`: the purification."""

    name: str
    surface: str
    policy: str | None = None


RANK = "rank"  # the paper's gate as published, for whole data sets alone
SYSTEMS = (
    System("defence", "trained", "floor"),
    System("defence-paper-policy", "trained", "paper"),
    System("defence-published-gate", "trained", RANK),
    System("trained-mixture", "trained"),
    System("uniform-attention", "uniform"),
    System("best-expert", "expert"),
    System("undefended", "plain"),
    System("plain-purified", "plain", "floor"),
    System("plain-purified-paper-policy", "plain", "paper"),
)
MEANING = {
    "defence": "detector, purifier (policy floor) and trained mixture",
    "defence-paper-policy": "the same, purifying flagged scans only",
    "defence-published-gate": "the same, purifying the share kappa of the highest MAE error",
    "trained-mixture": "adversarially trained mixture alone",
    "uniform-attention": "its experts with equal weights",
    "best-expert": "its best single expert, chosen on validation scans",
    "undefended": "plain classifier, trained without adversarial examples, alone",
    "plain-purified": "detector and purifier (policy floor) in front of the plain classifier",
    "plain-purified-paper-policy": "the same, purifying flagged scans only",
}


def systems_named(names: Sequence[str] | None) -> tuple[System, ...]:
    """The systems of these names, all of them by default. Raises ValueError for an unknown name."""
    require_known("system", names or (), [s.name for s in SYSTEMS])
    return tuple(s for s in SYSTEMS if not names or s.name in names)


def purified(
    pipeline: MedFedPure, x: Tensor, seeds: Sequence[int], policy: str | None = None
) -> Tensor:
    """Scans (B, C, H, W) as the purifier leaves them by a policy, the deployed one unless named."""
    return pipeline.purify(x, depth_of(pipeline, policy, x), seeds)


def depth_of(pipeline: MedFedPure, policy: str | None, x: Tensor) -> Tensor:
    """The depth (B,) int64 to which a policy purifies scans (B, C, H, W)."""
    return pipeline.t_star(pipeline.score(pipeline.detect(x)), policy)


class Bench:
    """Classifies and reads with any of the systems, all from one pipeline."""

    def __init__(self, pipeline: MedFedPure, expert: int = 0) -> None:
        self.pipeline = pipeline
        self.expert = expert

    def classify(self, surface: str, x: Tensor) -> Tensor:
        """Calibrated log-probabilities (B, 2) of one classifier, differentiable."""
        if surface == "trained":
            return self.pipeline.classifier_logits(x)
        if surface == "plain":
            return self.pipeline.plain_logits(x)
        calibrated = self.pipeline.classifier
        if surface == "expert":
            expert = calibrated.model.experts[self.expert]
            return calibrated.calibrate(expert(x).float().log_softmax(1))
        if surface == "uniform":
            logits = torch.stack([e(x).float().log_softmax(1) for e in calibrated.model.experts])
            return calibrated.calibrate(torch.logsumexp(logits, 0) - math.log(len(logits)))
        raise ValueError(f"unknown surface {surface!r}")

    @torch.no_grad()
    def read(
        self, systems: Sequence[System], x: Tensor, seeds: Sequence[int]
    ) -> dict[str, Reading]:
        """Readings of the same scans by several systems, which share the detector's work."""
        score: Tensor | None = None
        pure, done = x, torch.zeros(len(x), dtype=torch.long, device=x.device)
        readings = {}
        for system in systems:
            x_pur, flagged, t_star = x, None, None
            if system.policy is not None:
                if score is None:
                    score = self.pipeline.score(self.pipeline.detect(x))
                t_star = self.pipeline.t_star(score, system.policy)
                flagged = score > self.pipeline.tau
                # policies agree on flagged scans: what is purified to this depth is kept
                same = t_star == done
                rest = self.pipeline.purify(x, t_star.masked_fill(same, 0), seeds)
                x_pur = torch.where(same[:, None, None, None], pure, rest)
                if (~same & (t_star > 0)).any():
                    pure, done = x_pur, t_star
            attention = None
            if system.surface == "trained":
                output = self.pipeline.classifier.model.outputs(x_pur)
                log_probs = self.pipeline.classifier.calibrate(output.logits)
                attention = output.attention
            else:
                log_probs = self.classify(system.surface, x_pur)
            probability = log_probs.exp()[:, 1]
            readings[system.name] = Reading(probability, flagged, t_star, attention)
        return readings
