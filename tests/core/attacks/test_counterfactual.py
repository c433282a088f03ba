"""Counterfactuals: within their size, smooth, in the head alone, and they turn the answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.attacks import Counterfactual
from core.attacks.counterfactual import smooth

SIDE = 48


def blob() -> Tensor:
    """Return a disc of tissue on black, (1, 1, SIDE, SIDE)."""
    y, x = torch.meshgrid(*[torch.arange(SIDE) - SIDE / 2] * 2, indexing="ij")
    return ((x**2 + y**2 < 15**2) * 0.4)[None, None]


def logits(x: Tensor) -> Tensor:
    """Say 'tumour' where the middle is bright."""
    bright = x[:, 0, 18:30, 18:30].mean((1, 2)) - 0.45
    return torch.stack([-20 * bright, 20 * bright], 1)


def test_it_turns_the_answer_within_its_size() -> None:
    search, x = Counterfactual(eps=0.2, steps=40), blob()
    assert logits(x).argmax(1).item() == 0
    *_, last = search.search(logits, x, torch.tensor([1]))
    assert last.probabilities[0, 1] >= search.enough
    assert (last.x_adv - x).abs().max() <= 0.2 + 1e-6
    assert last.x_adv.min() >= 0 and last.x_adv.max() <= 1


def test_nothing_is_drawn_outside_the_head_and_no_fine_pattern_inside() -> None:
    x = blob()
    *_, last = Counterfactual().search(logits, x, torch.tensor([1]))
    change = last.x_adv - x
    assert change[0, 0, :3].abs().max() == 0
    steepest = (change[..., 1:] - change[..., :-1])[0, 0, 15:33, 15:33].abs().max()
    assert steepest < change.abs().max() / 2


def test_it_stops_where_the_answer_is_sure_enough() -> None:
    steps = list(Counterfactual(steps=40).search(logits, blob(), torch.tensor([1])))
    assert [step.index for step in steps] == list(range(len(steps))) and len(steps) < 40
    assert all(step.probabilities[0, 1] < 0.95 for step in steps[:-1])


def test_without_a_gradient_nothing_changes() -> None:
    flat = lambda x: torch.zeros(len(x), 2) + 0 * x.flatten(1)[:, :2]  # noqa: E731
    *_, last = Counterfactual(steps=3).search(flat, blob(), torch.tensor([1]))
    assert torch.equal(last.x_adv, blob()) and last.index == 3


def test_smoothing_keeps_the_sum() -> None:
    point = torch.zeros(2, 1, SIDE, SIDE)
    point[:, :, 24, 24] = 1
    torch.testing.assert_close(smooth(point, 3.0).sum((1, 2, 3)), torch.ones(2))
    assert smooth(point, 3.0).max() < 0.03


@pytest.mark.parametrize("values", [{"eps": -0.1}, {"steps": 0}, {"sigma": 0.0}, {"enough": 0.0}])
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"eps must be|out of range"):
        Counterfactual(**values)  # type: ignore[arg-type]
