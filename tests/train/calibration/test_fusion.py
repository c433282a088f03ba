"""Fused score: bounded feature shares, non-negative weights, detector-aware examples."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from core.attacks import PGD
from core.detector import Detector
from core.features import FEATURES
from core.metrics import auroc
from core.pipeline import MedFedPure
from demo.phantom import draw_phantom
from train.calibration.fusion import (
    MAX_FEATURE_SHARE,
    FusionConfig,
    _fit_non_negative,
    compute_feature_shares,
    fit,
    fuse,
    make_detector_aware,
)
from train.calibration.logistic import fit_logistic

SMALL_CONFIG = FusionConfig(eps=(0.015,), hidden_scans=2, hidden_rounds=1, hidden_steps=8)


@pytest.fixture
def scans() -> Tensor:
    return torch.stack([draw_phantom(seed, tumour=seed % 2 == 1) for seed in range(4)])


@pytest.fixture
def system(tiny_system: MedFedPure) -> MedFedPure:
    return copy.deepcopy(tiny_system)


class Fused:
    """Buffers that `fit` writes."""

    def __init__(self, features: int) -> None:
        self.centre, self.spread, self.weight = (torch.zeros(features) for _ in range(3))
        self.offset = torch.zeros(())


def draw_features(gaps: list[float], n: int = 400) -> tuple[Tensor, Tensor]:
    """Draw features of clean and attacked scans that many standard deviations apart."""
    g = torch.Generator().manual_seed(0)
    clean, attacked = torch.randn(2, n, len(gaps), generator=g)
    return clean, attacked + torch.tensor(gaps)


def measure_fused(gaps: list[float], n: int = 400) -> tuple[float, Tensor, float]:
    """Return the largest share, the weights, and the AUROC on new scans."""
    made, (clean, attacked) = Fused(len(gaps)), draw_features(gaps, 2 * n)
    share = fit(made, clean[:n], [attacked[:n]], 1e-2)
    score = torch.cat([clean[n:], attacked[n:]]) @ made.weight
    return share, made.weight, auroc(score, torch.arange(2).repeat_interleave(n))


def test_no_feature_carries_more_than_half_of_the_score():
    gaps = [2.5, 1.5, 1.2, 1.0, 0.0]
    clean, attacked = draw_features(gaps)
    free, _ = fit_logistic(clean, attacked, 1e-2)
    share, weight, found = measure_fused(gaps)
    assert compute_feature_shares(free, clean, attacked).max() > 0.55  # it would
    assert share <= MAX_FEATURE_SHARE
    assert found > 0.98 and (weight[:4] > 0).all()


def test_two_equal_features_share_it_out():
    share, weight, found = measure_fused([2.0, 2.0])
    assert share == pytest.approx(0.5, abs=0.05) and found > 0.96
    assert weight.max() < 1.5 * weight.min()


@pytest.mark.parametrize("others", [[0.0] * 8, [0.2, 0.2, 0.0]])
def test_a_feature_that_alone_separates_well_is_kept(others):
    share, _, found = measure_fused([3.5, *others], 240)
    assert share > MAX_FEATURE_SHARE  # and says so
    assert found > 0.96


def test_chance_carries_nothing():
    clean, attacked = draw_features([2.0, 0.0, 0.0])
    share = compute_feature_shares(torch.tensor([1.0, 1.0, -1.0]), clean, attacked)
    assert share.tolist() == [1.0, 0.0, 0.0]


def test_no_weight_is_below_zero():
    """Attacks lower the second feature: an unconstrained fit would reward raising it."""
    clean, attacked = draw_features([1.5, -1.5, 1.5, 1.5])
    free, _ = fit_logistic(clean, attacked, 1e-2)
    made = Fused(4)
    fit(made, clean, [attacked], 1e-2)
    assert free[1] < -0.5  # it would
    assert (made.weight >= 0).all() and made.weight[1] == 0
    assert (made.weight[[0, 2, 3]] > 0.5).all()


def test_where_nothing_rises_nothing_is_weighed():
    made = Fused(2)
    clean, attacked = draw_features([-2.0, -2.0])
    assert fit(made, clean, [attacked], 1e-2) == 0
    assert not made.weight.any() and torch.isfinite(made.offset)


def test_weights_are_the_best_of_those_that_are_not_below_zero():
    """A feature that is negative only beside a removed one returns: compared with L-BFGS-B."""
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        mix = torch.randn(8, 8, generator=g) / 2 + torch.eye(8)
        gap = torch.randn(8, generator=g)
        zeros, ones = (torch.randn(240, 8, generator=g) @ mix + m * gap for m in (0, 1))
        penalty = torch.full((8,), 1e-2, dtype=torch.float64)
        weight, _ = _fit_non_negative(zeros, ones, penalty)
        z = torch.cat([zeros, ones]).double().numpy()
        y = np.repeat([-1.0, 1.0], 240)

        def loss(w, z=z, y=y):
            return np.logaddexp(0, -y * (z @ w[:8] + w[8])).mean() + 1e-2 * (w[:8] ** 2).sum()

        bounds = [(0, None)] * 8 + [(None, None)]
        best = minimize(loss, np.zeros(9), bounds=bounds, method="L-BFGS-B", tol=1e-12).x[:8]
        assert np.allclose(weight.numpy(), best, atol=0.02), seed


def test_few_detector_aware_examples_weigh_as_much_as_many_ordinary_ones():
    """Four detector-aware examples in a hundred change the weights."""
    clean, ordinary = draw_features([2.0, 0.0])
    _, evading = draw_features([0.0, 2.0], 16)
    weights = []
    for families in ([ordinary], [torch.cat([ordinary, evading])], [ordinary, evading]):
        made = Fused(2)
        fit(made, clean, families, 1e-2)
        weights.append(float(made.weight[1] / made.weight[0]))
    assert weights[0] < 0.2 and weights[1] < 0.5 and weights[2] > 0.7


@pytest.mark.slow
def test_detector_aware_examples_score_lower_and_fit_into_a_file(
    system: MedFedPure, scans: Tensor
) -> None:
    x, y = scans[:2], torch.tensor([0, 1])
    system.detector.weight.copy_(torch.tensor([name == "quiet" for name in FEATURES]))
    system.detector.spread.fill_(10.0)
    config, eps = replace(SMALL_CONFIG, hidden_steps=20), SMALL_CONFIG.hidden_eps
    found = make_detector_aware(system, x, y, config, [1, 2])
    assert (found - x).abs().max() <= eps and found.min() >= 0 and found.max() <= 1
    assert torch.allclose(255 * found, (255 * found).round(), atol=1e-3)
    assert torch.equal(found, make_detector_aware(system, x, y, config, [1, 2]))
    assert not torch.equal(found, make_detector_aware(system, x, y, config, [3, 4]))
    plain = PGD(eps, 2.5 * eps / 20, 20, eight_bit=True)(system.classifier_logits, x, y, [1, 2])
    low, high = (system.detector(z).scores["fused"] for z in (found, plain))
    assert (low < high).all()


def test_steps_take_turns_and_the_last_is_the_classifiers(
    system: MedFedPure, scans: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for part in (system.classifier, system.detector):
        part.register_forward_pre_hook(lambda m, _: calls.append(type(m).__name__))
    monkeypatch.setattr(system.detector._measurements, "trained", lambda z: z[:, 0, :2, 0])
    make_detector_aware(
        system, scans[:1], torch.tensor([1]), replace(SMALL_CONFIG, hidden_steps=4), [1]
    )
    assert calls[:4] == ["Detector", "Calibrated"] * 2


def test_a_score_of_thousands_still_has_a_gradient(system: MedFedPure, scans: Tensor) -> None:
    """A plain softmax would be exactly one and have no gradient."""
    x, y, few = scans[:2], torch.tensor([0, 1]), replace(SMALL_CONFIG, hidden_steps=2)
    near = make_detector_aware(system, x, y, few, [1, 2])
    system.detector.offset.fill_(5e3)
    far = make_detector_aware(system, x, y, few, [1, 2])
    assert (near == far).float().mean() > 0.9


@pytest.mark.slow
def test_fusing_adds_examples_that_evade_the_previous_fit(
    system: MedFedPure, scans: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = scans, torch.tensor([0, 1, 0, 1])
    fits: list[list[int]] = []
    weights: list[Tensor] = []

    def spied_fit(detector: Detector, clean: Tensor, families: list[Tensor], ridge: float) -> float:
        fits.append([len(family) for family in families])
        return fit(detector, clean, families, ridge)

    def spied_detector_aware(s: MedFedPure, *args: Any) -> Tensor:
        weights.append(s.detector.weight.clone())
        return args[0] + 0.01  # a marked copy: the recorded score is what matters

    monkeypatch.setattr("train.calibration.fusion.fit", spied_fit)
    monkeypatch.setattr("train.calibration.fusion.make_detector_aware", spied_detector_aware)
    said: list[str] = []
    fuse(system, x, y, replace(SMALL_CONFIG, hidden_rounds=2), said.append)
    assert fits == [[4], [4, 2], [4, 4]]  # all detector-aware examples so far
    assert len(said) == 3 and not torch.equal(weights[0], weights[1])


def test_without_rounds_there_are_no_detector_aware_examples(
    system: MedFedPure, scans: Tensor
) -> None:
    said: list[str] = []
    fuse(
        system,
        scans,
        torch.tensor([0, 1, 0, 1]),
        replace(SMALL_CONFIG, hidden_rounds=0),
        said.append,
    )
    assert "detector-aware" not in " ".join(said)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_steps": 0}, {"hidden_steps": 7}, {"hidden_scans": 0}, {"hidden_rounds": -1},
     {"hidden_eps": 0}, {"eps": ()}, {"ridge": 0}],
)  # fmt: skip
def test_invalid_settings_are_refused_before_any_attack(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        FusionConfig(**wrong)
