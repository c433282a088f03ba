"""Measures of drawn maps against drawn masks, by hand; the level is chosen as documented."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.explanations.figures import find_level, summarize_maps
from bench.explanations.maps import Maps, resize_cells
from bench.explanations.measures import Measures, choose_level, list_levels, measure_map
from bench.unseen.figures import Facts

SIDE = 224
HALF = torch.tensor([0.5], dtype=torch.float64)


def square(top: int, left: int, side: int = 24) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def grey() -> Tensor:
    """A scan (1, H, W) whose upper half is head."""
    scan = torch.zeros(1, SIDE, SIDE)
    scan[:, : SIDE // 2] = 0.4
    return scan


def by_pixel(map_: Tensor) -> Maps:
    return Maps(map_[None], map_[None])


def test_a_cell_s_value_stands_at_its_centre() -> None:
    cells = torch.arange(56.0).expand(1, 56, 56)
    pixels = resize_cells(cells, SIDE)
    middle = (torch.arange(SIDE) - 1.5) / 4  # cell i covers pixels 4 i to 4 i + 3
    assert torch.allclose(pixels[0, 100], middle.clamp(0, 55), atol=1e-5)


def test_a_perfect_map_scores_everything() -> None:
    mask = square(40, 60)
    found = measure_map(by_pixel(mask.float()), grey(), mask, HALF)
    assert found.points.item() == found.energy.item() == found.dice.item() == 1
    assert found.inside.item() == found.highest.item() == 1
    cells = mask.view(56, 4, 56, 4).any(3).any(1).float()[None]
    found = measure_map(Maps(cells, resize_cells(cells, SIDE)), grey(), mask, HALF)
    assert found.points.item() == 1
    assert found.dice.item() == pytest.approx(2 * 572 / (572 + 576))  # without four corner pixels


def test_a_shifted_map_scores_what_overlaps() -> None:
    mask, shifted = square(40, 60), square(40, 68).float()
    shifted[50, 90] = 2.0  # the highest point lies outside
    found = measure_map(by_pixel(shifted), grey(), mask, torch.tensor([0.5, 1.5, 2.5]))
    assert found.points.item() == 0
    assert found.energy.item() == pytest.approx(16 * 24 / (24 * 24 + 1))
    assert found.dice[0].tolist() == pytest.approx([2 * 16 / (24 + 24), 0, 0])
    assert (found.inside.item(), found.highest.item()) == (1, 2)


def test_chance_is_the_tumour_s_share_of_the_head() -> None:
    even = by_pixel(torch.ones(SIDE, SIDE))
    for mask, outside in ((square(40, 60), 0), (square(150, 60), 24 * 24)):
        found = measure_map(even, grey(), mask, HALF)
        assert found.chance.item() == pytest.approx(24 * 24 / (112 * SIDE + outside))
        assert found.energy.item() == pytest.approx(24 * 24 / SIDE**2)


def test_a_cell_counts_as_inside_where_it_touches_the_mask() -> None:
    cells = torch.zeros(1, 56, 56)
    cells[0, 12, 15] = 0.7  # pixels 48 to 51 and 60 to 63
    maps = Maps(cells, resize_cells(cells, SIDE))
    assert measure_map(maps, grey(), square(51, 63), HALF).inside.item() == pytest.approx(0.7)
    assert measure_map(maps, grey(), square(52, 63), HALF).inside.item() == 0


def test_an_empty_map_points_nowhere_and_a_healthy_scan_has_no_mask() -> None:
    nothing = by_pixel(torch.zeros(SIDE, SIDE))
    found = measure_map(nothing, grey(), square(40, 60), HALF)
    assert found.energy.item() == found.dice.item() == found.points.item() == 0
    healthy = measure_map(by_pixel(torch.full((SIDE, SIDE), 0.3)), grey(), None, HALF)
    assert healthy.highest.item() == pytest.approx(0.3)
    assert math.isnan(healthy.points.item()) and healthy.dice.isnan().all()


def test_the_level_of_the_highest_dice_leaves_healthy_scans_empty() -> None:
    dice = torch.tensor([0.9, 0.7, 0.6, 0.1])
    assert choose_level(dice, torch.tensor([0.90, 0.95, 0.97, 1.0])) == 1
    assert choose_level(dice, torch.tensor([0.95, 0.95, 0.97, 1.0])) == 0
    assert choose_level(dice, torch.tensor([0.20, 0.60, 0.90, 0.90])) == 2  # none leaves .95
    assert list_levels(2.0)[[0, -1]].tolist() == pytest.approx([0.02, 1.98])


def made(highest: list[float], inside: list[float], dice: list[list[float]]) -> Measures:
    """Measures of scans; those whose `inside` is NaN are healthy."""
    column = torch.tensor(inside, dtype=torch.float64)
    tops = torch.tensor(highest, dtype=torch.float64)
    points = torch.where(column.isnan(), column, (column >= tops).double())
    values = tops, column, points, column / 2, column / 10
    return Measures(*values, torch.tensor(dice, dtype=torch.float64))


NAN = math.nan
MADE = made(
    highest=[0.9, 0.8, 0.6, 0.1, 0.3, 0.7, 0.2],
    inside=[0.9, 0.4, 0.6, NAN, NAN, NAN, NAN],
    dice=[[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], *([[NAN, NAN]] * 4)],
)
FACTS = Facts(
    y=torch.tensor([1, 1, 1, 0, 0, 0, 0]),
    units=[1, 2, 3, 4, 5, 6, 7],
    patients=[""] * 7,
    sources=["a", "a", "b", "a", "a", "b", "c"],
    views=[""] * 7,
    kinds=["glioma", "glioma", "pituitary", "", "", "", ""],
    sizes=["small", "large", "small", "", "", "", ""],
)


def test_each_source_counts_once_in_the_choice_of_the_level() -> None:
    levels = torch.tensor([0.5, 0.65], dtype=torch.float64)
    found = find_level(MADE, FACTS, levels)
    # mean Dice (.7 + .1) / 2 and (.3 + .9) / 2; empty (1 + 0 + 1) / 3 at both levels
    assert (found["level"], found["dice"]) == (0.65, pytest.approx(0.6))
    assert found["empty"] == pytest.approx(2 / 3)
    assert (found["outlined"], found["healthy"]) == (3, 4)
    with pytest.raises(ValueError, match="chosen on healthy validation scans"):
        find_level(made([0.5], [0.5], [[1.0]]), FACTS.pick([0]), HALF)


def test_figures_by_source_size_and_kind_and_their_mean() -> None:
    only = Measures(**{**vars(MADE), "dice": MADE.dice[:, :1]})
    found = summarize_maps(only, FACTS, 0.5)
    a, b, c = (found["sources"][name] for name in "abc")
    assert (a["pointing"]["k"], a["pointing"]["n"]) == (1, 2)  # .4 inside, .8 elsewhere
    assert (a["recall"]["k"], b["recall"]["k"]) == (1, 1)
    assert (a["empty"]["value"], b["empty"]["value"], c["empty"]["value"]) == (1, 0, 1)
    assert a["dice"]["value"] == pytest.approx(0.7) and "dice" not in c
    assert a["sizes"]["large"]["pointing"]["value"] == 0
    assert a["kinds"]["glioma"]["energy"]["value"] == pytest.approx(0.325)
    mean = found["mean"]
    assert mean["sources"] == ["a", "b"]  # c has no tumour
    assert mean["pointing"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert mean["dice"]["value"] == pytest.approx((0.7 + 0.1) / 2)
    assert mean["empty"]["value"] == pytest.approx((1 + 0) / 2)
    assert mean["chance"]["value"] == pytest.approx((0.065 + 0.06) / 2)
    low, high = mean["pointing"]["interval"]
    assert low == 0.5 and high == 1  # of a's two tumours none or both are drawn
