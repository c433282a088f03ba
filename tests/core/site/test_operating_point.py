"""A site's shift: the answers of the whole quantile map, and no more of a scan than its side."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from core import metrics
from core.explanation import explain
from core.pipeline import MedFedPure
from core.site.operating_point import (
    GRID,
    TOLERANCE,
    find_shift,
    shift_log_odds,
)
from demo.phantom import draw_phantom

KNOTS = np.linspace(0, 1, 20)


def draw(n: int, prevalence: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw log-odds of two overlapping classes, and labels."""
    g = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) < round(prevalence * n)).long()
    return torch.randn(n, generator=g).double() * 1.5 + 4 * y - 2, y


def map_quantiles(site: Tensor, reference: Tensor, y: Tensor, prevalence: float) -> Tensor:
    """Map the site's quantiles to those of the reference's classes, mixed at a prevalence.

    The reference is moved to where its false positives are as many as its false negatives.
    """
    count = 10_000
    parts = [
        np.quantile(reference[y == label].numpy(), np.linspace(0, 1, round(share * count)))
        for label, share in ((1, prevalence), (0, 1 - prevalence))
    ]
    mixed = np.concatenate(parts)
    wanted = np.quantile(mixed - np.quantile(mixed, 1 - prevalence), KNOTS)
    return torch.as_tensor(np.interp(site.numpy(), np.quantile(site.numpy(), KNOTS), wanted))


@pytest.mark.parametrize("prevalence", [0.3, 0.5, 0.7])
def test_a_shift_gives_the_answers_of_the_whole_map(prevalence: float) -> None:
    reference, y = draw(4000, 0.5, 0)
    site = 0.6 * draw(200, prevalence, 1)[0] + 1.7
    shift = find_shift(site, prevalence)
    mapped = map_quantiles(site, reference, y, prevalence + TOLERANCE)
    differ = int(((mapped >= 0) != (site + shift >= 0)).sum())
    assert differ <= 4  # 2 %: between two knots the map is a line
    assert int(((site >= 0) != (site + shift >= 0)).sum()) > 10


def test_a_scanner_that_moves_all_log_odds_is_undone() -> None:
    site, y = draw(2000, 0.5, 2)

    def measure(log_odds: Tensor) -> float:
        return metrics.balanced_accuracy(log_odds.sigmoid(), y)

    for moved in (-3.0, 3.0):
        shift = find_shift(site + moved, 0.5)
        assert measure(site + moved) < 0.75
        assert measure(site + moved + shift) > measure(site) - 0.04


def test_answers_near_the_assumed_prevalence_stay() -> None:
    for prevalence, share in ((0.5, 0.4), (0.5, 0.6), (0.3, 0.21), (0.9, 0.99)):
        log_odds = torch.where(torch.arange(100) < round(100 * share), 2.0, -1.0)
        assert find_shift(log_odds, prevalence) == 0


@pytest.mark.parametrize(
    ("prevalence", "above"), [(0.05, 1), (0.2, 2), (0.5, 4), (0.65, 5), (0.7, 5), (0.95, 7)]
)
def test_answers_are_moved_to_the_edge_of_what_is_assumed(prevalence: float, above: int) -> None:
    """Five of eight are above 0; at least one scan stays on each side."""
    log_odds = torch.tensor([3.0, -1.0, 0.5, 8.0, -4.0, 1.5, 2.0, -2.5])
    shift = find_shift(log_odds, prevalence)
    assert int((log_odds + shift >= 0).sum()) == above
    assert (shift == 0) == (above == 5)
    assert shift / GRID == pytest.approx(round(shift / GRID))


def test_rounding_does_not_leave_what_is_assumed() -> None:
    """The crossing is 2.0105; the step 2.00, which is nearer, would leave 602 above 0."""
    log_odds = 0.005 * torch.arange(1000).double() + 0.013
    for moved, expected, above in ((0.0, -2.05, 592), (-5.021, 2.05, 408)):
        shift = find_shift(log_odds + moved, 0.5)
        assert shift == pytest.approx(expected)
        assert int((log_odds + moved + shift >= 0).sum()) == above


def test_fewer_than_two_scans_are_not_shifted() -> None:
    for log_odds in ([], [3.0], [-3.0]):
        assert find_shift(torch.tensor(log_odds), 0.5) == 0.0


@torch.no_grad()
def test_shares_of_the_log_odds_add_up_after_a_shift(tiny_system: MedFedPure) -> None:
    classifier = copy.deepcopy(tiny_system.classifier)
    classifier.temperature.fill_(0.3)
    x = torch.stack([draw_phantom(n, n == 1) for n in range(3)])
    output = classifier.model.outputs(x)
    before, found = classifier(x).diff(dim=1)[:, 0], explain(classifier, output)
    shift_log_odds(classifier, 1.25)
    after, moved = classifier(x).diff(dim=1)[:, 0], explain(classifier, output)
    assert torch.allclose(after, before + 1.25, atol=1e-5)
    assert torch.equal(moved.shares, found.shares)
    assert torch.allclose(moved.shares.sum(1) + moved.operating_point, after, atol=1e-4)


def test_no_scan_is_recognised_by_the_shift() -> None:
    """Neither nearness to the crossing tells the site's scans, nor that two are as near."""
    areas, differences, order = [], [], torch.Generator().manual_seed(0)
    for seed in range(300):
        log_odds = draw(100, 0.5, seed)[0][torch.randperm(100, generator=order)] + 3
        site = log_odds[:50]
        moved = log_odds + find_shift(site, 0.5)
        areas.append(metrics.auroc(-moved.abs(), (torch.arange(100) < 50).long()))
        beside = moved[:50][moved[:50] >= 0].min(), moved[:50][moved[:50] < 0].max()
        differences.append(abs(float(beside[0] + beside[1])))
    assert sum(areas) / len(areas) < 0.53
    assert sum(gap > 1e-3 for gap in differences) > 0.9 * len(differences)
