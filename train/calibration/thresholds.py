"""Thresholds and rounded quantiles of the detector's scores on clean validation scans."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from core.detector import NUM_QUANTILES, SCORES, Detector, find_threshold

RANK_PARTS = 100  # parts of the grid's step to which the rank rule's threshold is rounded


def store_thresholds(detector: Detector, name: str, clean: Tensor, attacked: Tensor) -> None:
    """Store thresholds, span and rounded quantiles of score `name` of validation scans in place.

    Span is the distance of the deciding threshold to the attacked median.
    """
    store_clean(detector, name, clean)
    row = SCORES.index(name)
    detector.span[row] = max(float(attacked.median()) - detector.tau(name), 1e-6)


def store_clean(detector: Detector, name: str, clean: Tensor) -> None:
    """Store thresholds and rounded quantiles of score `name` of clean scans in place.

    Whoever has a file knows what is stored. Quantiles are rounded to a grid of half the distance
    between the third and the seventh decile: on a finer one the distance to the nearest quantile
    tells validation scans from others. Minimum and maximum are rounded outwards, the rank rule's
    threshold upwards to a hundredth of the step; the calibrated one decides and stays exact.
    """
    row, c = SCORES.index(name), detector.config
    tau, rank = (find_threshold(clean, share) for share in (c.false_alarms, c.kappa))
    found = np.quantile(clean.double().cpu().numpy(), np.linspace(0, 1, NUM_QUANTILES))
    step = float(f"{max((found[7] - found[3]) / 2, 1e-9):.0e}")  # one digit
    places = found / step
    places[:] = np.floor(places[0]), *np.round(places[1:-1]), np.ceil(places[-1])
    detector.quantiles[row] = torch.as_tensor(places * step)
    rank = math.ceil(rank / step * RANK_PARTS - 1e-6) * step / RANK_PARTS
    detector.thresholds[row] = torch.tensor([tau, rank])
