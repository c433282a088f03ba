"""The consistent attack: inside its ball, and wrong answers that the search for flips passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.attacks import APGD, PGD, ConsistentPGD
from core.attacks.base import margin
from core.stability import find_flips

EPS, D, SIDE = 0.03, 0.01, 12


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.Tanh(), nn.Linear(32, 2))
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.fixture(scope="module")
def scans(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(16, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return x, model(x).argmax(1)


def test_it_stays_in_the_ball(model: nn.Module, scans: tuple[Tensor, Tensor]) -> None:
    x, y = scans
    for attack in (ConsistentPGD(EPS, D, 5), ConsistentPGD(EPS, D, 5, eight_bit=True)):
        x_adv = attack(model, x, y)
        assert (x_adv - x).abs().max() <= EPS + 1e-6
        assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_its_wrong_answers_are_more_stable_than_those_at_the_border(
    model: nn.Module, scans: tuple[Tensor, Tensor]
) -> None:
    """It gets at least the silent misreadings of APGD, and most of what lies eps - d away."""
    x, y = scans

    def count_silent(x_adv: Tensor) -> int:
        wrong = model(x_adv).argmax(1) != y
        return int((wrong & (find_flips(model, x_adv, (D,)).radius >= D - 1e-6)).sum())

    own = count_silent(ConsistentPGD(EPS, D, 20)(model, x, y))
    assert own >= count_silent(APGD(EPS, 20)(model, x, y)) and own > 0
    reach = find_flips(model, x, (EPS - D, EPS, 0.1), steps=40).distance
    assert own <= int((reach <= EPS + 1e-6).sum())
    assert own >= int((reach <= 0.7 * (EPS - D)).sum())


def test_of_its_points_the_one_with_the_highest_lower_margin_is_kept(
    model: nn.Module, scans: tuple[Tensor, Tensor]
) -> None:
    x, y = scans

    def lower_margin(x_adv: Tensor) -> Tensor:
        twin = PGD(D, 2 * D / 5, 5, random_start=False, targeted=True)(model, x_adv, y)
        return torch.minimum(margin(model(x_adv), y), margin(model(twin), y))

    short, long = (ConsistentPGD(EPS, D, n, random_start=False)(model, x, y) for n in (1, 30))
    assert (lower_margin(long) >= lower_margin(short) - 1e-4).all()
    border = APGD(EPS, 30)(model, x, y)
    assert (lower_margin(long) >= lower_margin(border) - 1e-4).all()


@pytest.mark.parametrize("values", [{"d": 0.0}, {"steps": 0}, {"inner_steps": 0}, {"eps": -1.0}])
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ConsistentPGD(**values)  # type: ignore[arg-type]
