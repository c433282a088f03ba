"""Curves and histograms that a result file holds: counts add up, curves agree with the figures."""

from itertools import pairwise

import pytest
import torch

from bench.components.detector import measure_alarms, measure_detection
from bench.robustness.all_scans import evaluate_all
from bench.robustness.attacks import CLEAN, Attacker
from bench.robustness.systems import build_systems
from bench.summaries import RANGES, compute_roc, count_reliability, count_scores
from core import metrics
from core.detector import SCORES
from core.features import FEATURES


def _scores(shift: float, n: int = 400) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0)) + shift


def test_the_curve_is_that_of_the_figures_beside_it():
    negative, positive = _scores(0), _scores(1.5)
    curve = compute_roc(negative, positive)
    assert len(curve) == 101 and curve[-1] == 1.0
    assert curve == sorted(curve)
    score = torch.cat([negative, positive])
    y = torch.cat([torch.zeros(400), torch.ones(400)]).long()
    assert curve[5] == metrics.tpr_at_fpr(score, y, 0.05)
    area = sum((a + b) / 200 for a, b in pairwise(curve))
    assert area == pytest.approx(metrics.auroc(score, y), abs=0.01)


def test_scores_that_separate_and_that_do_not():
    assert compute_roc(torch.zeros(3), torch.ones(3)) == [1.0] * 101
    assert compute_roc(torch.ones(3), torch.ones(3))[:100] == [0.0] * 100


def test_a_histogram_counts_every_scan_beyond_its_range_too():
    low, high = RANGES["paper"]
    counts = count_scores(
        torch.tensor([low - 5, low, low + 0.04 * (high - low), high, high + 5]), "paper"
    )["counts"]
    assert (counts[0], counts[1], counts[-1]) == (2, 1, 2)
    assert sum(counts) == 5 and len(counts) == 30


def test_reliability_bins_hold_every_scan():
    probability = torch.tensor([0.0, 0.05, 0.55, 0.99, 1.0])
    found = count_reliability(probability, torch.tensor([0, 1, 1, 1, 1]))
    assert found["n"] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert found["tumours"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert found["mean"][0] == pytest.approx(0.025) and found["mean"][1] is None


def test_the_commands_keep_them(pipeline, test_fold):
    names = [*SCORES, *(f"feature {name}" for name in FEATURES)]
    found = {name: torch.linspace(-1, 1, len(test_fold)) for name in names}
    row = measure_detection(pipeline, found, found, test_fold.groups)
    for name in SCORES:
        assert len(row["scores"][name]["roc"]) == 101
        assert row["tau"][name] == pipeline.detector.tau(name)
        assert sum(row["histogram"][name]["counts"]) == len(test_fold)
    assert "histogram" in measure_alarms(pipeline, found, test_fold.groups)
    few = test_fold.thin(4)
    row = evaluate_all(pipeline, few, CLEAN, Attacker(0.0), build_systems(pipeline, ["undefended"]))
    assert sum(row["systems"]["undefended"]["reliability"]["n"]) == 4
