"""Contrast of lesions, by hand on drawn scans."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.components import lesions

SIDE = 224


def square(top: int, left: int, side: int = 24) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_contrast_is_the_lesion_s_mean_minus_that_of_the_ring_around_it():
    x = torch.full((1, SIDE, SIDE), 0.25)
    x[0][lesions.widen(square(90, 60), 8)] = 0.5
    x[0][square(90, 60)] = 0.875
    assert lesions.measure_contrast(x, square(90, 60)) == pytest.approx(0.375)
    with pytest.raises(ValueError, match="fills the scan"):
        lesions.measure_contrast(x, torch.ones(SIDE, SIDE, dtype=torch.bool))
