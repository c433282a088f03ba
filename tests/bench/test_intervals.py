"""Bootstrap by unit: each draw's figure is the metric of the scans drawn, as often as drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.intervals import (
    draw_auroc,
    draw_balanced_accuracy,
    draw_share,
    draw_units,
    find_interval,
)
from core import metrics

UNITS = [7, 7, 7, 3, 3, 9, 4, 4, 1, 1]
SCORE = torch.tensor([0.1, 0.4, 0.4, 0.3, 0.9, 0.4, 0.8, 0.3, 0.1, 0.7])
Y = torch.tensor([0, 0, 1, 0, 1, 0, 1, 1, 0, 1])


def take(values: Tensor, times: Tensor) -> Tensor:
    """Repeat each value as often as one draw takes it."""
    return values.repeat_interleave(times.long())


def test_a_draw_takes_as_many_units_as_there_are_and_whole_ones() -> None:
    times = draw_units(UNITS, 50)
    firsts = [UNITS.index(unit) for unit in sorted(set(UNITS))]
    assert times[:, firsts].sum(1).tolist() == [5.0] * 50
    for i, unit in enumerate(UNITS):
        assert torch.equal(times[:, i], times[:, UNITS.index(unit)])
    assert torch.equal(times, draw_units(UNITS, 50))
    assert len({tuple(row) for row in times.tolist()}) > 20


def test_each_draw_has_the_metrics_of_its_scans() -> None:
    times = draw_units(UNITS, 40)
    right = metrics.is_right(SCORE, Y)
    found = draw_auroc(times, SCORE, Y), draw_balanced_accuracy(times, right, Y)
    compared = 0
    for row, area, balanced in zip(times, *found, strict=True):
        score, y = take(SCORE, row), take(Y, row)
        if 0 < int(y.sum()) < len(y):
            compared += 1
            assert float(area) == pytest.approx(metrics.auroc(score, y))
            assert float(balanced) == pytest.approx(metrics.balanced_accuracy(score, y))
    assert compared > 30


def test_copies_of_a_scan_in_its_unit_change_nothing() -> None:
    once, thrice = draw_units(range(10)), draw_units([i for i in range(10) for _ in range(3)])
    copies = SCORE.repeat_interleave(3), Y.repeat_interleave(3)
    found = find_interval(draw_auroc(thrice, *copies))
    assert found == pytest.approx(find_interval(draw_auroc(once, SCORE, Y)))
    assert found[0] < metrics.auroc(SCORE, Y) < found[1]
    as_if_apart = find_interval(draw_auroc(draw_units(range(30)), *copies))
    assert as_if_apart[1] - as_if_apart[0] < found[1] - found[0]


def test_a_draw_without_a_class_has_no_figure_and_is_left_out() -> None:
    times = torch.tensor([[1.0, 1, 0], [0, 0, 2], [0, 1, 1]], dtype=torch.float64)
    y, right = torch.tensor([0, 0, 1]), torch.tensor([True, False, True])
    shares = draw_share(times, right, y == 0)
    assert shares.isnan().tolist() == [False, True, False]
    assert shares[[0, 2]].tolist() == [0.5, 0.0]
    assert find_interval(shares, level=1.0) == (0.0, 0.5)
    assert draw_auroc(times, torch.tensor([0.2, 0.1, 0.2]), y).isnan().tolist() == [1, 1, 0]
