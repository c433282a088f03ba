"""Tumour maps: pooling by hand, geometry, and answers that are made of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.moe import Expert, MixtureOfExperts, MoEConfig
from core.tumour_map import CELL, MAX_OVERALL, TumourMapHead, enlarge, pool_cells

CONFIG = MoEConfig(
    img_size=64,
    sides=(32, 16),
    channels=(8, 8, 8, 8),
    hidden=8,
    attention_hidden=4,
    map_width=4,
)


def build_expert(side: int = 32) -> Expert:
    torch.manual_seed(0)
    return Expert(CONFIG, side).eval()


def draw_scans() -> Tensor:
    return torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def test_pooling_by_hand() -> None:
    cells = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    expected = math.log(sum(math.exp(2 * c) for c in (1, 2, 3, -1)) / 4) / 2
    assert pool_cells(cells, 2.0).item() == pytest.approx(expected, abs=1e-6)


def test_pooling_lies_between_mean_and_maximum() -> None:
    cells = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool_cells(cells, 1e-3), cells.mean((1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(pool_cells(cells, 1e3), cells.amax((1, 2)), atol=5e-3, rtol=0)
    torch.testing.assert_close(pool_cells(torch.full((1, 9, 9), 0.7)), torch.tensor([0.7]))


@pytest.mark.parametrize(("n", "side"), [(4, 28), (7, 28), (14, 28), (28, 28), (5, 8)])
def test_maps_are_enlarged_as_torch_does_it(n: int, side: int) -> None:
    x = torch.randn(2, 3, n, n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(enlarge(x, side), F.interpolate(x, (side, side), mode="bilinear"))


def test_the_answer_is_the_sum_of_both_parts() -> None:
    expert, x = build_expert(), draw_scans()
    with torch.no_grad():
        logits, _, found = expert.answer(x)
    assert found is not None
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], found.local + found.overall)
    torch.testing.assert_close(logits.sum(1), torch.zeros(3))


def test_parts_by_hand() -> None:
    head = TumourMapHead((2,), 4, 8)
    with torch.no_grad():
        head.scale.fill_(2)
        head.shift.fill_(-0.5)
        found = head([torch.rand(2, 2, 4, 4)], torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(found.local, 2 * pool_cells(found.cells) - 0.5)
    expected = torch.tensor([3 * math.tanh(1 / 3), -3 * math.tanh(2 / 3)])
    torch.testing.assert_close(found.overall, expected)


def test_what_global_features_add_is_bounded() -> None:
    head = TumourMapHead((2,), 4, 8)
    with torch.no_grad():
        found = head([torch.rand(2, 2, 4, 4)], torch.tensor([1000.0, -1000.0]))
    assert found.overall.tolist() == pytest.approx([MAX_OVERALL, -MAX_OVERALL])


@pytest.mark.parametrize("side", CONFIG.sides)
def test_a_change_of_the_scan_changes_the_cells_there_most(side: int) -> None:
    expert, x = build_expert(side), draw_scans()
    changed = x.clone()
    changed[:, :, 40:56, 8:24] = 1 - changed[:, :, 40:56, 8:24]
    with torch.no_grad():
        moved = (expert.answer(changed).map.cells - expert.answer(x).map.cells).abs().mean(0)
    assert moved.shape == (64 // CELL, 64 // CELL)
    row, column = divmod(int(moved.argmax()), 16)
    assert 40 - 2 * CELL <= row * CELL < 56 + 2 * CELL
    assert 8 - 2 * CELL <= column * CELL < 24 + 2 * CELL


def test_a_mixture_returns_the_map_of_each_expert() -> None:
    model, x = MixtureOfExperts(CONFIG).eval(), draw_scans()
    with torch.no_grad():
        output = model.outputs(x)
    assert len(output.maps) == 2
    for k, found in enumerate(output.maps):
        log_odds = output.expert_logits[:, k, 1] - output.expert_logits[:, k, 0]
        torch.testing.assert_close(found.local + found.overall, log_odds)


def test_no_map_without_a_width() -> None:
    model = MixtureOfExperts(replace(CONFIG, map_width=0)).eval()
    assert model.outputs(draw_scans()).maps == ()
    assert not any("tumour_map" in name for name in model.state_dict())


@pytest.mark.parametrize(
    "changes", [{"num_classes": 10}, {"backbone": "mobilenetv2", "channels": (1280,)}]
)
def test_networks_without_a_tumour_map_are_refused_one(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="tumour map needs a resnet18 and two classes"):
        replace(CONFIG, **changes)
