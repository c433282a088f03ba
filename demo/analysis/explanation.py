"""Explanation of one reading: the distribution of clean scans' scores, and Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from core.maps.gradcam import grad_cam

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure


@dataclass(frozen=True)
class CleanScores:
    """Distribution of the deciding score over clean validation scans."""

    values: np.ndarray  # (U,) ascending rounded scores
    shares: np.ndarray  # (U,) of the scans below each
    alarm_share: float  # of the scans, above the threshold


@dataclass(frozen=True)
class HeatMap:
    """Grad-CAM of the mixture on the scan that one reading's answer is of."""

    label: int  # the class that the map explains: the defended output
    share: Tensor  # (H, W) of the highest value, in [0, 1]


def collect_clean_scores(system: MedFedPure, name: str) -> CleanScores:
    """Collect the clean scores of a named score, and its false-positive rate."""
    values, shares = system.detector.clean_distribution(name)
    tau = torch.tensor([system.tau], device=system.device)
    return CleanScores(values, shares, 1 - float(system.detector.confidence(tau, name)))


def compute_heat_map(system: MedFedPure, diagnosis: Diagnosis) -> HeatMap:
    """Compute Grad-CAM of a reading of this system; takes about as long as its classification."""
    label = int(diagnosis.is_tumour)
    x = diagnosis.scan_read[None].to(system.device)
    y = torch.tensor([label], device=x.device)
    values = grad_cam(system.classifier.model, x, y).mixture[0].cpu()
    return HeatMap(label, values / values.max().clamp_min(1e-9))
