"""What picks a classifier's epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.moe import MixtureOfExperts, MoEConfig
from train.classifier import validation
from train.task import Data, balanced_weights


class Bright(MixtureOfExperts):
    """Says class 1 of every scan that is brighter than one half."""

    def __init__(self) -> None:
        super().__init__(MoEConfig(sides=(16,), img_size=16, channels=(4, 4, 4, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = 9 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], 1).log_softmax(1)


def test_copies_of_one_odd_scan_do_not_outweigh_the_others():
    levels, labels, groups = [200] * 9 + [50] * 9 + [200] * 4, [0] * 18 + [1] * 4, [0] * 9
    groups += list(range(1, 14))  # nine copies of one bright scan of class 0, all else told apart
    scans = np.repeat(np.array(levels, np.uint8), 256).reshape(-1, 16, 16)
    weights = balanced_weights(labels, groups)
    figures = validation(Data(scans, torch.tensor(labels), weights), torch.device("cpu"), 0.0)(
        Bright()
    )
    assert figures["clean"] == pytest.approx((9 / 12 + 1) / 2)
    assert figures["score"] == figures["clean"]
