"""Regions of a tumour map: numbers, sizes and places by hand."""

from __future__ import annotations

import pytest
import torch

from demo.analysis.regions import list_regions, mark_head


def draw_head() -> torch.Tensor:
    """Draw a head of 40 x 40 cells (160 x 160 pixels) in the middle, dark inside."""
    scan = torch.zeros(1, 224, 224)
    scan[:, 32:192, 32:192] = 0.8
    scan[:, 80:140, 80:140] = 0.0
    return scan


def test_regions_by_hand() -> None:
    cells = torch.zeros(56, 56)
    cells[10:14, 8:12] = 0.6  # 16 cells, upper left
    cells[40, 50] = 0.9
    (found,) = list_regions(cells[None], [0.5, 0.7, 0.95], draw_head())
    assert [r.count for r in found] == [2, 1, 0]
    assert [r.area for r in found] == [17, 1, 0]
    assert found[0].head_share == pytest.approx(16 / 1600)  # the other cell is beside the head
    assert found[0].place == pytest.approx((10 / 56, 12 / 56))
    assert found[1].place == pytest.approx((50.5 / 56, 40.5 / 56))
    assert all(r.peak == pytest.approx(0.9) for r in found)


def test_a_cell_at_the_threshold_counts() -> None:
    cells = torch.full((1, 4, 4), 0.25)
    scan = torch.ones(1, 16, 16)
    at, above = list_regions(cells, [0.25, 0.2501], scan)[0]
    assert (at.count, at.head_share, above.count) == (1, 1.0, 0)


def test_the_head_includes_what_is_dark_inside() -> None:
    head = mark_head(draw_head(), 56)
    assert head.sum() == 1600
    assert head[8:48, 8:48].all()


def test_without_a_head_there_is_no_share() -> None:
    (found,) = list_regions(torch.ones(1, 56, 56), [0.5], torch.zeros(1, 224, 224))[0]
    assert found.head_share == 0 and found.area == 56 * 56


def test_the_share_of_the_head_is_at_most_one() -> None:
    (found,) = list_regions(torch.ones(1, 56, 56), [0.5], draw_head())[0]
    assert found.head_share == 1 and found.area == 56 * 56
