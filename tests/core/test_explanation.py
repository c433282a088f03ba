"""Explanations: shares add up to the answer's log-odds, by hand and at the tie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.classifier import Calibrated
from core.explanation import explain
from core.moe import MixtureOfExperts, MixtureOutput, MoEConfig
from core.tumour_map import TumourMap

CONFIG = MoEConfig(
    img_size=64, sides=(32, 16), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4, map_width=4
)


def build_classifier() -> Calibrated:
    torch.manual_seed(0)
    classifier = Calibrated(MixtureOfExperts(CONFIG)).eval().requires_grad_(False)
    classifier.temperature.fill_(1.7)
    classifier.bias.copy_(torch.tensor([0.2, -0.3]))
    return classifier


def build_output(log_odds: list[list[float]], attention: list[list[float]]) -> MixtureOutput:
    """Build the output of experts with these log-odds; their maps hold a third of each."""
    odds, weights = torch.tensor(log_odds), torch.tensor(attention)
    logits = torch.stack([-odds / 2, odds / 2], 2)
    mixed = (weights[:, :, None] * logits.softmax(2)).sum(1).log()
    maps = tuple(TumourMap(torch.zeros(len(o), 2, 2), o / 3, 2 * o / 3) for o in odds.T)
    return MixtureOutput(mixed, logits, weights, maps)


def log_odds_of(classifier: Calibrated, output: MixtureOutput) -> Tensor:
    logits = classifier.calibrate(output.logits)
    return logits[:, 1] - logits[:, 0]


def test_shares_and_operating_point_add_up() -> None:
    classifier = build_classifier()
    with torch.no_grad():
        output = classifier.model.outputs(torch.rand(5, 1, 64, 64))
        found = explain(classifier, output)
    total = found.shares.sum(1) + found.operating_point
    torch.testing.assert_close(total, log_odds_of(classifier, output), atol=1e-4, rtol=1e-4)
    assert found.operating_point == pytest.approx(-0.5)


def test_shares_by_hand() -> None:
    classifier = build_classifier()
    output = build_output([[2.0, -1.0]], [[0.75, 0.25]])
    a, b = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    p = 0.75 * a + 0.25 * b
    ratio = math.log(p / (1 - p)) / (p - 0.5) / 1.7
    shares = [ratio * 0.75 * (a - 0.5), ratio * 0.25 * (b - 0.5)]
    found = explain(classifier, output)
    torch.testing.assert_close(found.shares, torch.tensor([shares]))
    torch.testing.assert_close(found.overall, torch.tensor([2 / 3 * sum(shares)]))


def test_shares_of_a_tie_are_the_limit() -> None:
    classifier = build_classifier()
    tie = build_output([[1.5, -1.5]], [[0.5, 0.5]])
    near = build_output([[1.5, -1.499]], [[0.5, 0.5]])
    torch.testing.assert_close(
        explain(classifier, tie).shares, explain(classifier, near).shares, atol=1e-3, rtol=0
    )
    assert explain(classifier, build_output([[0.0, 0.0]], [[0.3, 0.7]])).overall.item() == 0


def test_a_certain_answer_has_finite_shares() -> None:
    classifier = build_classifier()
    found = explain(classifier, build_output([[60.0, 40.0]], [[0.4, 0.6]]))
    assert torch.isfinite(found.shares).all() and found.shares.min() > 0


def test_the_mixed_map_weighs_the_experts_maps() -> None:
    classifier = build_classifier()
    with torch.no_grad():
        output = classifier.model.outputs(torch.rand(2, 1, 64, 64))
        found = explain(classifier, output)
    assert found.maps is not None and found.mixed is not None
    by_hand = sum(output.attention[:, k, None, None] * found.maps[:, k] for k in range(2))
    torch.testing.assert_close(found.mixed, by_hand)
    torch.testing.assert_close(found.maps[:, 1], (output.maps[1].cells - math.log(4)).sigmoid())


def test_without_maps_all_of_the_answer_is_of_global_features() -> None:
    classifier = build_classifier()
    output = build_output([[2.0, 1.0]], [[0.5, 0.5]])._replace(maps=())
    found = explain(classifier, output)
    assert found.maps is None and found.mixed is None
    torch.testing.assert_close(found.overall, found.shares.sum(1))
