"""Thresholds and rounded quantiles of the detector's scores on clean validation scans."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from core.detector import NUM_QUANTILES, SCORES, Detector

RANK_PARTS = 100  # parts of the grid's step to which the rank rule's threshold is rounded


def store_thresholds(detector: Detector, name: str, clean: Tensor, attacked: Tensor) -> None:
    """Store thresholds, span and rounded quantiles of score `name` of validation scans in place.

    A threshold that a share p of clean scans may exceed is the ceil((n + 1) (1 - p))-th of n
    scores, as a conformal quantile needs; span is its distance to the attacked median.

    Whoever has a file knows what is stored. Quantiles are rounded to a grid of half the distance
    between the third and the seventh decile: on a finer one the distance to the nearest quantile
    tells validation scans from others. Minimum and maximum are rounded outwards, the rank rule's
    threshold upwards to a hundredth of the step; the calibrated one decides and stays exact.
    """
    row, n, c = SCORES.index(name), len(clean), detector.config
    ordered = clean.double().cpu().sort().values.numpy()
    tau, rank = (
        float(ordered[min(math.ceil((n + 1) * (1 - share) - 1e-9), n) - 1])
        for share in (c.false_alarms, c.kappa)
    )
    found = np.quantile(ordered, np.linspace(0, 1, NUM_QUANTILES))
    step = float(f"{max((found[7] - found[3]) / 2, 1e-9):.0e}")  # one digit
    places = found / step
    places[:] = np.floor(places[0]), *np.round(places[1:-1]), np.ceil(places[-1])
    detector.quantiles[row] = torch.as_tensor(places * step)
    rank = math.ceil(rank / step * RANK_PARTS - 1e-6) * step / RANK_PARTS
    detector.thresholds[row] = torch.tensor([tau, rank])
    detector.span[row] = max(float(attacked.median()) - detector.tau(name), 1e-6)
