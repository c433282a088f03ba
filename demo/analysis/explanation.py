"""Explanation of one reading: Grad-CAM maps and the distribution of clean scans' scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core.gradcam import grad_cam

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure


@dataclass(frozen=True)
class Evidence:
    """Evidence for one reading: Grad-CAM on the purified scan, distribution of clean scores."""

    label: int  # the class that the maps explain: the defended output
    mixture: Tensor  # (H, W) non-negative, log-odds
    experts: Tensor  # (K, H, W) the same unit
    sides: tuple[int, ...]  # of each expert's input, in pixels
    clean_scores: np.ndarray  # (U,) ascending rounded scores
    clean_shares: np.ndarray  # (U,) of clean validation scans below each
    alarm_share: float  # of clean validation scans, above the threshold

    @property
    def top(self) -> float:
        """Highest value of all maps, to which the colours of one reading are scaled."""
        return max(float(self.mixture.max()), float(self.experts.max()), 1e-9)


def explain_reading(system: MedFedPure, diagnosis: Diagnosis) -> Evidence:
    """Explain a reading of this system; takes about as long as its classification."""
    model = system.classifier.model
    label = int(diagnosis.is_tumour)
    x = diagnosis.purified[None].to(system.device)
    cams = grad_cam(model, x, torch.tensor([label], device=x.device))
    detector, name = system.detector, diagnosis.score_name
    scores, shares = detector.clean_distribution(name)
    below = detector.confidence(torch.tensor([diagnosis.tau], device=system.device), name)
    return Evidence(
        label=label,
        mixture=cams.mixture[0].cpu(),
        experts=cams.experts[0].cpu(),
        sides=model.config.sides,
        clean_scores=scores,
        clean_shares=shares,
        alarm_share=1 - float(below),
    )
