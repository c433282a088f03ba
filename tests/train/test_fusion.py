"""The fused score: no measurement alone, none that is raised to hide, taught by what hides."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.attack import PGD
from core.features import FEATURES
from core.metrics import auroc
from core.pipeline import MedFedPure
from demo.phantom import phantom
from train.fusion import MOST, FusionConfig, carried, fit, fuse, hidden
from train.logistic import logistic

FEW = FusionConfig(eps=(0.015,), hidden_scans=2, hidden_rounds=1, hidden_steps=8)


@pytest.fixture
def scans() -> Tensor:
    return torch.stack([phantom(seed, tumour=seed % 2 == 1) for seed in range(4)])


@pytest.fixture
def system(tiny_system: MedFedPure) -> MedFedPure:
    return copy.deepcopy(tiny_system)


class Fused:
    """What `fit` writes to."""

    def __init__(self, features: int) -> None:
        self.centre, self.spread, self.weight = (torch.zeros(features) for _ in range(3))
        self.offset = torch.zeros(())


def told(gaps: list[float], n: int = 400) -> tuple[Tensor, Tensor]:
    """Features of clean and attacked scans that lie so many standard deviations apart."""
    g = torch.Generator().manual_seed(0)
    clean, attacked = torch.randn(2, n, len(gaps), generator=g)
    return clean, attacked + torch.tensor(gaps)


def fused(gaps: list[float], n: int = 400) -> tuple[float, Tensor, float]:
    """The largest share, the weights, and the AUROC on scans that were not fitted on."""
    made, (clean, attacked) = Fused(len(gaps)), told(gaps, 2 * n)
    share = fit(made, clean[:n], [attacked[:n]], 1e-2)
    score = torch.cat([clean[n:], attacked[n:]]) @ made.weight
    return share, made.weight, auroc(score, torch.arange(2).repeat_interleave(n))


def test_no_feature_carries_more_than_half_of_the_score():
    gaps = [2.5, 1.5, 1.2, 1.0, 0.0]
    clean, attacked = told(gaps)
    free, _ = logistic(clean, attacked, 1e-2)
    share, weight, found = fused(gaps)
    assert carried(free, clean, attacked).max() > 0.55  # it would
    assert share <= MOST
    assert found > 0.98 and (weight[:4] > 0).all()


def test_two_equal_features_share_it_out():
    share, weight, found = fused([2.0, 2.0])
    assert share == pytest.approx(0.5, abs=0.05) and found > 0.96
    assert weight.max() < 1.5 * weight.min()


@pytest.mark.parametrize("others", [[0.0] * 8, [0.2, 0.2, 0.0]])
def test_a_feature_that_alone_tells_much_is_not_given_up_for_those_that_do_not(others):
    share, _, found = fused([3.5, *others], 240)
    assert share > MOST  # and says so
    assert found > 0.96


def test_chance_carries_nothing():
    clean, attacked = told([2.0, 0.0, 0.0])
    share = carried(torch.tensor([1.0, 1.0, -1.0]), clean, attacked)
    assert share.tolist() == [1.0, 0.0, 0.0]


def test_no_weight_is_below_zero():
    """Attacks lower the second feature: a free fit would let whoever raises it hide."""
    clean, attacked = told([1.5, -1.5, 1.5, 1.5])
    free, _ = logistic(clean, attacked, 1e-2)
    made = Fused(4)
    fit(made, clean, [attacked], 1e-2)
    assert free[1] < -0.5  # it would
    assert (made.weight >= 0).all() and made.weight[1] == 0
    assert (made.weight[[0, 2, 3]] > 0.5).all()


def test_where_nothing_rises_nothing_is_weighed():
    made = Fused(2)
    fit(made, *(lambda c, a: (c, [a], 1e-2))(*told([-2.0, -2.0])))
    assert not made.weight.any() and torch.isfinite(made.offset)


def test_a_few_that_hide_weigh_as_much_as_many_that_do_not():
    """Four in a hundred move what the others leave alone."""
    clean, ordinary = told([2.0, 0.0])
    _, hiding = told([0.0, 2.0], 16)
    weights = []
    for families in ([ordinary], [torch.cat([ordinary, hiding])], [ordinary, hiding]):
        made = Fused(2)
        fit(made, clean, families, 1e-2)
        weights.append(float(made.weight[1] / made.weight[0]))
    assert weights[0] < 0.2 and weights[1] < 0.5 and weights[2] > 0.7


def test_what_hides_scores_lower_and_stays_in_the_ball(system: MedFedPure, scans: Tensor) -> None:
    x, y = scans[:2], torch.tensor([0, 1])
    found = hidden(system, x, y, FEW, [1, 2])
    assert (found - x).abs().max() <= FEW.hidden_eps + 1e-6 and found.min() >= 0
    assert found.max() <= 1 and (found - x).abs().mean() > 0.1 * FEW.hidden_eps
    assert torch.equal(found, hidden(system, x, y, FEW, [1, 2]))
    assert not torch.equal(found, hidden(system, x, y, FEW, [3, 4]))
    system.detector.weight.copy_(torch.tensor([name == "quiet" for name in FEATURES]))
    system.detector.spread.fill_(10.0)
    one = replace(FEW, hidden_steps=40)
    plain = PGD(one.hidden_eps, 2.5 * one.hidden_eps / 40, 40)
    twins = hidden(system, x, y, one, [1, 2]), plain(system.classifier_logits, x, y, [1, 2])
    low, high = (system.detector(z).scores["fused"] for z in twins)
    assert (low < high).all()


def test_a_score_of_thousands_still_has_a_gradient(system: MedFedPure, scans: Tensor) -> None:
    """Its softmax would be exactly one, and the detector's steps would go nowhere."""
    one = replace(FEW, hidden_steps=1)  # the detector's alone
    x, y = scans[:2], torch.tensor([0, 1])
    start = hidden(system, x, y, replace(one, hidden_eps=1e-9), [1, 2])
    near = hidden(system, x, y, one, [1, 2])
    system.detector.offset.fill_(5e3)
    far = hidden(system, x, y, one, [1, 2])
    assert (near == far).float().mean() > 0.9
    assert ((near - start).abs() > one.hidden_eps / 2).float().mean() > 0.3


def test_fusing_learns_from_what_hid_from_the_first_fit(
    system: MedFedPure, scans: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = scans[:4], torch.tensor([0, 1, 0, 1])
    seen: list[Tensor] = []
    weights: list[Tensor] = []

    def spy(s: MedFedPure, *args: object) -> Tensor:
        weights.append(s.detector.weight.clone())
        seen.append(hidden(s, *args))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr("train.fusion.hidden", spy)
    said: list[str] = []
    fuse(system, x, y, replace(FEW, hidden_rounds=2), said.append)
    assert len(seen) == 2 and len(said) == 3
    assert not torch.equal(seen[0], seen[1])  # other starts, and another score
    assert not torch.equal(weights[0], torch.full_like(weights[0], 1 / len(weights[0])))
