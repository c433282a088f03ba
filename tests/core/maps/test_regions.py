"""Connected regions: their numbers by hand, and against a fill of one cell a step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from core.maps import regions
from core.maps.regions import label_regions


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    above = torch.tensor(
        [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]], dtype=torch.bool
    )
    assert len(label_regions(above).unique()) == 3  # none, and two regions


def test_a_winding_region_is_one() -> None:
    above = torch.ones(1, 9, 9, dtype=torch.bool)
    above[0, 1, :8] = above[0, 3, 1:] = above[0, 5, :8] = above[0, 7, 1:] = False
    assert len(label_regions(above).unique()) == 2
    above[0, 0, 4] = above[0, 8, 4] = False
    assert len(label_regions(above).unique()) == 4


def test_each_region_has_the_number_of_its_last_cell() -> None:
    inside = torch.tensor([[[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 1]]]).bool()
    expected = [[[0, 3, 3, 0], [0, 0, 0, 0], [14, 0, 0, 16], [0, 14, 0, 16]]]
    assert label_regions(inside).tolist() == expected


def test_numbers_are_made_on_the_device_of_the_maps() -> None:
    inside = torch.tensor([[[1, 0, 0, 1]]]).bool()
    with torch.device("meta"):  # where tensors are made that name no device
        assert label_regions(inside).tolist() == [[[1, 0, 0, 4]]]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.7])
def test_regions_are_those_of_a_fill_of_one_cell_a_step(share: float) -> None:
    inside = torch.rand(20, 24, 31, generator=torch.Generator().manual_seed(0)) < share
    expected = torch.arange(1, 24 * 31 + 1.0).view(24, 31) * inside
    while True:
        further = F.max_pool2d(expected[:, None], 3, 1, 1)[:, 0] * inside
        if torch.equal(further, expected):
            break
        expected = further
    assert torch.equal(label_regions(inside), expected.long())


def test_large_winding_regions_are_labelled_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    above = torch.zeros(1, 56, 56, dtype=torch.bool)
    above[0, ::2] = True
    above[0, 1::4, -1] = above[0, 3::4, 0] = True  # one path of 1,600 cells
    steps = []
    spread = regions._spread

    def count(numbers: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return spread(numbers)

    monkeypatch.setattr(regions, "_spread", count)
    assert len(label_regions(above).unique()) == 2
    assert len(steps) < 20
