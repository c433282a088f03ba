"""Search for the smallest eps: exact on linear models, and never below the attacks that it ran."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from core.attacks import PGD, MinimalPGD

SIDE = 8
TOLERANCE = 1 / 255 / 4


def linear(odds: float, norm: str, smallest: float) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return log-odds w . (x - x0) + odds, and x0: eps `smallest` flips it, smaller eps does not.

    Along the sign of w (its direction in L2) the log-odds fall fastest: by eps |w|_1 (eps |w|_2).
    """
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    length = w.abs().sum() if norm == "linf" else w.norm()
    w = w / length * abs(odds) / smallest
    x0 = torch.full((1, 1, SIDE, SIDE), 0.5)  # far from black and white: nothing is clipped

    def logits(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), (x - x0).flatten(1) @ w + odds], dim=1)

    return logits, x0


def label(odds: float) -> Tensor:
    return torch.tensor([int(odds > 0)])


@pytest.mark.parametrize("odds", [2.0, -0.3])
@pytest.mark.parametrize(("norm", "smallest"), [("linf", 0.0131), ("linf", 0.0587), ("l2", 0.61)])
def test_a_linear_models_answer_is_exact(norm: str, smallest: float, odds: float) -> None:
    logits, x = linear(odds, norm, smallest)
    largest = 0.06 if norm == "linf" else 2.0
    search = MinimalPGD(largest, norm=norm)
    found = search(logits, x, label(odds))
    assert found is not None and smallest - 1e-6 <= found <= smallest + TOLERANCE + 1e-6
    *_, last = search.search(logits, x, label(odds))
    assert last.high == found and last.low <= smallest + 1e-6 and found - last.low <= TOLERANCE


def test_none_where_even_the_largest_does_not_flip_it() -> None:
    logits, x = linear(1.0, "linf", 0.0601)
    assert MinimalPGD(0.06)(logits, x, label(1.0)) is None
    probes = list(MinimalPGD(0.06).search(logits, x, label(1.0)))
    assert [p.eps for p in probes] == [0, 0.06]
    assert all(p.high is None and p.x_adv is None for p in probes)


def test_zero_where_the_output_was_another_one_before() -> None:
    logits, x = linear(1.0, "linf", 0.01)
    (probe,) = MinimalPGD().search(logits, x, label(-1.0))
    assert probe.high == 0 and torch.equal(probe.x_adv, x)


def test_steps_report_the_interval_and_the_scan() -> None:
    """The interval only shrinks, and the reported scan flips the network's output."""
    torch.manual_seed(0)
    inside, x = nn.Linear(SIDE * SIDE, 32), torch.rand(1, 1, SIDE, SIDE)
    logits = nn.Sequential(nn.Flatten(), inside, nn.Tanh(), nn.Linear(32, 3))
    y = logits(x).argmax(1)
    probes = list(MinimalPGD(0.5).search(logits, x, y))
    assert probes[-1].high is not None and len(probes) > 5
    for before, after in pairwise(probes):
        assert before.low <= after.low
        assert before.high is None or (after.high is not None and after.high <= before.high)
        assert before.high is None or before.low < after.eps < before.high
    for probe in probes:
        assert (probe.x_adv is None) == (probe.high is None)
        if probe.x_adv is not None and probe.high is not None:
            assert (probe.x_adv - x).abs().max() <= probe.high + 1e-6
            assert logits(probe.x_adv).argmax(1) != y


def test_a_success_is_never_taken_back() -> None:
    """Flipped above .03, and by chance from .001 to .002: the search stays above failed attacks."""

    def logits(x: Tensor) -> Tensor:
        size = (x - 0.5).mean((1, 2, 3))
        turned = (size.detach() > 0.03) | ((size.detach() > 0.001) & (size.detach() < 0.002))
        slope = size - size.detach()  # zero, but the attack can follow it
        return torch.stack([slope + 0.5, 1 - 1.0 * turned], dim=1)

    x = torch.full((1, 1, SIDE, SIDE), 0.5)
    found = MinimalPGD(0.06, steps=1)(logits, x, torch.tensor([1]))
    assert found is not None and 0.03 < found < 0.03 + 2 * TOLERANCE


@pytest.mark.parametrize("count", [0, 2])
def test_one_scan_at_a_time(count: int) -> None:
    logits, x = linear(1.0, "linf", 0.01)
    with pytest.raises(ValueError, match="one scan"):
        MinimalPGD()(logits, x.expand(count, -1, -1, -1), torch.ones(count, dtype=torch.long))


@pytest.mark.parametrize("wrong", [{"largest": -1.0}, {"tolerance": 0.0}, {"steps": 0}])
def test_impossible_searches_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        MinimalPGD(**wrong)


def test_less_than_the_answer_fails_more_than_it_succeeds() -> None:
    logits, x = linear(2.0, "linf", 0.0131)
    found = MinimalPGD()(logits, x, label(2.0))

    def turned(eps: float) -> bool:
        x_adv = PGD(eps, eps, 3, random_start=False)(logits, x, label(2.0))
        return bool(logits(x_adv).argmax(1) != label(2.0))

    assert found is not None and turned(found + 1e-6) and not turned(found - 2 * TOLERANCE)
