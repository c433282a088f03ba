"""Contrast of lesions: by hand on drawn scans, and behind the purifier of an untrained system."""

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


@pytest.fixture(scope="module")
def masks(test_fold) -> dict[int, Tensor]:
    return {row: square(90, 60) for row in range(len(test_fold))}


@pytest.fixture
def flagged(pipeline, monkeypatch):
    """All scans are, and of whatever contrast a lesion is, it counts."""
    monkeypatch.setattr(lesions, "MIN_CONTRAST", 0.0)
    monkeypatch.setattr(type(pipeline), "tau", -1e6)


def test_lesions_of_scans_that_pass_are_left_out(pipeline, test_fold, masks, monkeypatch, flagged):
    monkeypatch.setattr(type(pipeline), "tau", 1e6)
    found = lesions.measure_lesions(pipeline, test_fold, masks)
    assert found == {"n": 0, "not_flagged": len(masks)}


@pytest.mark.usefixtures("flagged")
def test_lesions_keep_contrast_and_lose_energy(pipeline, test_fold, masks):
    found = lesions.measure_lesions(pipeline, test_fold, masks)
    assert found["n"] == len(masks) and found["not_flagged"] == 0
    for name in ("contrast_kept", "energy_removed", "t_star"):
        assert found[name]["tenth"] <= found[name]["median"]
    assert found["energy_removed"]["median"] <= 1


@pytest.mark.usefixtures("flagged")
def test_a_purifier_that_does_nothing_keeps_all_and_removes_nothing(
    pipeline, test_fold, masks, monkeypatch
):
    monkeypatch.setattr(pipeline, "purify", lambda x, t_star, seeds: x)
    found = lesions.measure_lesions(pipeline, test_fold, masks)
    assert found["contrast_kept"] == {"tenth": 1.0, "median": 1.0}
    assert found["energy_removed"]["median"] == pytest.approx(0, abs=1e-9)
