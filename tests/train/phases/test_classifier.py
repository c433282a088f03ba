"""Validation score that selects a classifier's epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.moe import MixtureOfExperts, MoEConfig
from train.data.dataset import ScanDataset
from train.phases.classifier import build_validation


class Bright(MixtureOfExperts):
    """Classifier: class 1 for scans brighter than one half."""

    def __init__(self) -> None:
        super().__init__(MoEConfig(sides=(16,), img_size=16, channels=(4, 4, 4, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = 9 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], 1).log_softmax(1)


def build_data(levels: list[int], labels: list[int], groups: list[int]) -> ScanDataset:
    scans = np.repeat(np.array(levels, np.uint8), 256).reshape(-1, 16, 16)
    return ScanDataset(scans, torch.tensor(labels), [str(label) for label in labels], groups)


def test_copies_of_one_odd_scan_count_less_than_as_many_scans():
    # class 0: nine copies of one bright scan, and nine dark ones; class 1: bright
    data = build_data(
        [200] * 9 + [50] * 9 + [200] * 4, [0] * 18 + [1] * 4, [0] * 9 + [*range(1, 14)]
    )
    figures = build_validation(data, torch.device("cpu"), 0.0)(Bright())
    assert figures["clean"] == pytest.approx((9 / 12 + 1) / 2)
    assert set(figures) == {"clean", "nll", "score"}


def test_half_the_score_is_accuracy_under_attack():
    # one of class 1's two scans is within eps of being called class 0
    data = build_data([50, 60, 200, 130], [0, 0, 1, 1], [0, 1, 2, 3])
    figures = build_validation(data, torch.device("cpu"), 0.015)(Bright())
    assert (figures["clean"], figures["pgd"]) == (pytest.approx(1), pytest.approx(0.75))
    assert figures["score"] == pytest.approx(0.875)
