"""Calibration: best balanced accuracy at one half, temperatures that minimise the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.classifier import Calibrated
from core.moe import MixtureOfExperts, MoEConfig
from train.calibration.calibrate import set_operating_point
from train.data.dataset import compute_weights

TINY = {"img_size": 28, "sides": (14,), "channels": (8, 8, 8, 8), "hidden": 8}


class Fixed(nn.Module):
    """Classifier whose logits are the first row of the picture."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, : self.classes]


def classifier(classes: int) -> Calibrated:
    made = Calibrated(MixtureOfExperts(MoEConfig(**TINY, num_classes=classes)))
    made.model = Fixed(classes)  # type: ignore[assignment]
    return made


def pictures(logits: Tensor) -> Tensor:
    x = torch.zeros(len(logits), 1, 28, 28)
    x[:, 0, 0, : logits.shape[1]] = logits
    return x


def balanced(said: Tensor, y: Tensor) -> float:
    return float(torch.stack([(said[y == c] == c).float().mean() for c in y.unique()]).mean())


def weigh_evenly(y: Tensor) -> Tensor:
    """Return weights by which all classes count the same."""
    return compute_weights(y.tolist(), range(len(y)))


def toy(n: int = 300, offset: float = 3.0, share: float = 0.2, scale: float = 1.0):
    """Return margins of two overlapping classes, moved by `offset`; `share` are class 1."""
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(n, generator=g) < share).long()
    margin = (torch.randn(n, generator=g) + (2 * y - 1) * 1.5) * scale + offset
    return torch.stack([-margin / 2, margin / 2], 1), y


@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_one_half_is_the_best_operating_point_that_scans_left_out_confirm(offset):
    logits, y = toy(offset=offset)
    made = classifier(2)
    figures = set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
    with torch.no_grad():
        probability = made(pictures(logits)).exp()[:, 1]
    reached = balanced((probability > 0.5).long(), y)
    margin = logits[:, 1] - logits[:, 0]
    best = max(balanced((margin > cut).long(), y) for cut in margin)
    if offset:
        assert reached >= best - 0.0041
    else:  # the best cut is no better on scans left out
        assert not made.bias.any()
    assert figures["balanced"] == pytest.approx(reached, abs=1e-6)
    assert reached >= balanced((margin > 0).long(), y) - 0.0041


def test_overconfident_logits_are_cooled_and_shy_ones_sharpened():
    temperatures = []
    for scale in (0.5, 1.0, 5.0):
        logits, y = toy(share=0.5, offset=0.0, scale=scale)
        made = classifier(2)
        set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
        temperatures.append(float(made.temperature))
    assert temperatures == sorted(temperatures)
    assert temperatures[2] / temperatures[0] == pytest.approx(10, rel=0.15)  # the prior


def test_few_groups_all_read_right_sharpen_little_and_many_more():
    logits, y = toy(share=0.5, offset=0.0)
    right = logits[logits.argmax(1) == y]
    y = y[logits.argmax(1) == y]
    found = []
    for groups in (range(len(y)), [i % 20 for i in range(len(y))]):
        made = classifier(2)
        set_operating_point(made, pictures(right), y, weigh_evenly(y), groups)
        found.append(float(made.temperature))
    assert found[0] < 0.5 * found[1] and 0.4 < found[1] < 1


def test_probabilities_stay_probabilities():
    logits, y = toy()
    made = classifier(2)
    set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
    assert torch.allclose(made(pictures(logits)).exp().sum(1), torch.ones(len(y)), atol=1e-5)


def test_a_rare_cell_weighs_as_much_as_a_common_one():
    y = torch.tensor([0] * 90 + [1] * 10)
    margin = torch.where(y == 1, 0.4, 0.0) + torch.linspace(0, 0.5, 100).roll(37)
    logits = torch.stack([-margin / 2, margin / 2], 1)
    made = classifier(2)
    figures = set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
    assert figures["balanced"] > 0.7


def test_many_copies_of_one_odd_scan_do_not_move_the_operating_point():
    y = torch.tensor([0] * 70 + [1] * 50)
    odd, no, yes = torch.full((30,), 1.2), torch.linspace(-2, -1, 40), torch.linspace(1, 2, 50)
    margin = torch.cat([odd, no, yes])
    logits = torch.stack([-margin / 2, margin / 2], 1)
    copies = [0] * 30 + list(range(1, 91))
    for groups, cut in ((copies, 0.0), (range(120), 1.2)):  # one scan, or thirty that agree
        made = classifier(2)
        weights = compute_weights(y.tolist(), groups)
        set_operating_point(made, pictures(logits), y, weights, groups)
        with torch.no_grad():
            said = made(pictures(logits)).argmax(1)
        assert torch.equal(said, (margin > cut).long())


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_an_operating_point_that_fits_its_own_scans_alone_is_not_taken(n):
    """The best cut on a few uninformative scans would move the operating point."""
    g = torch.Generator().manual_seed(n)
    y = torch.arange(n) % 2
    margin = torch.randn(n, generator=g)
    made = classifier(2)
    logits = torch.stack([-margin / 2, margin / 2], 1)
    set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(n))
    assert not made.bias.any()


@pytest.mark.parametrize(("odd", "moves"), [(2, False), (3, False), (6, True)])
def test_an_operating_point_moves_for_more_scans_than_chance_gives(odd, moves):
    """All tumours and most others are classified right; a few others as tumours."""
    y = torch.tensor([0] * (20 + odd) + [1] * 20)
    no, taken, yes = torch.linspace(-2, -1, 20), torch.linspace(0.4, 0.5, odd), torch.full((20,), 3)
    margin = torch.cat([no, taken, yes])
    made = classifier(2)
    logits = torch.stack([-margin / 2, margin / 2], 1)
    set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
    assert bool(made.bias.any()) == moves


def test_many_scans_of_three_groups_do_not_move_the_operating_point():
    """One group of healthy near-duplicates, all classified as tumours, is one odd patient."""
    y = torch.tensor([0] * 16 + [1] * 9)
    margin = torch.cat([torch.linspace(0.4, 3, 16), torch.linspace(11, 22, 9)])
    logits = torch.stack([-margin / 2, margin / 2], 1)
    for groups, moves in (([0] * 16 + [1] * 8 + [2], False), (list(range(25)), True)):
        made = classifier(2)
        weights = compute_weights(y.tolist(), groups)
        set_operating_point(made, pictures(logits), y, weights, groups)
        assert bool(made.bias.any()) == moves


def test_with_many_classes_only_the_temperature_is_chosen():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(10, (400,), generator=g)
    logits = 4 * (F.one_hot(y, 10) * 2.0 + torch.randn(400, 10, generator=g))
    made = classifier(10)
    before = F.cross_entropy(logits, y)
    figures = set_operating_point(made, pictures(logits), y, weigh_evenly(y), range(len(y)))
    assert not made.bias.any()
    assert float(made.temperature) > 1.5
    assert F.nll_loss(made(pictures(logits)), y) < before
    assert figures["balanced"] == pytest.approx(balanced(logits.argmax(1), y), abs=1e-6)
