"""Metrics against scikit-learn, SciPy or a closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn import metrics as reference

from core import metrics


def _draw(seed: int, n: int = 200, levels: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw coarse probabilities with many ties, and labels correlated with them."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randint(0, levels + 1, (n,), generator=generator) / levels
    y = (p + 0.6 * torch.randn(n, generator=generator) > 0.5).long()
    return p, y


@pytest.mark.parametrize("seed", range(4))
def test_classification_measures_are_those_of_scikit_learn(seed):
    p, y = _draw(seed)
    called = (p >= 0.5).long()
    assert metrics.accuracy(p, y) == pytest.approx(reference.accuracy_score(y, called))
    assert metrics.sensitivity(p, y) == pytest.approx(reference.recall_score(y, called))
    assert metrics.specificity(p, y) == pytest.approx(reference.recall_score(1 - y, 1 - called))
    expected = reference.balanced_accuracy_score(y, called)
    assert metrics.balanced_accuracy(p, y) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [1, 5, 10_000])
def test_auroc_counts_ties_as_half(levels):
    p, y = _draw(7, levels=levels)
    assert metrics.auroc(p, y) == pytest.approx(reference.roc_auc_score(y, p))


def test_tpr_at_fpr_is_the_best_point_of_the_roc_curve_that_is_allowed():
    p, y = _draw(3, n=400, levels=50)
    fpr, tpr, _ = reference.roc_curve(y, p, drop_intermediate=False)
    for allowed in (0.0, 0.01, 0.05, 0.3):
        best = tpr[fpr <= allowed + 1e-12].max()
        assert metrics.tpr_at_fpr(p, y, allowed) == pytest.approx(best)


def test_calibration_error_of_two_bins_by_hand():
    p = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.4, 0.4])
    y = torch.tensor([1, 1, 1, 0, 0, 1])
    # called tumour at .95, right 3 of 4; called healthy at .6, right 1 of 2
    expected = 4 / 6 * abs(0.75 - 0.95) + 2 / 6 * abs(0.5 - 0.6)
    assert metrics.expected_calibration_error(p, y, 10) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_sees_overconfidence():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, generator=generator)
    y = (torch.rand(20_000, generator=generator) < p).long()
    honest = metrics.expected_calibration_error(p, y)
    sharpened = metrics.expected_calibration_error((6 * (p - 0.5)).sigmoid(), y)
    assert honest < 0.02 < sharpened


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (524, 600)])
def test_wilson_interval_is_that_of_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert metrics.wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_bootstrap_over_groups_is_wider_than_over_scans():
    generator = torch.Generator().manual_seed(1)
    per_group = torch.randint(0, 2, (40,), generator=generator)
    values = per_group.repeat_interleave(10)
    groups = torch.arange(40).repeat_interleave(10).tolist()
    low, high = metrics.group_bootstrap_interval(values, groups)
    alone_low, alone_high = metrics.group_bootstrap_interval(values, list(range(400)))
    assert high - low > 2 * (alone_high - alone_low)
    share, spread = float(values.double().mean()), 1.96 * math.sqrt(0.25 / 40)
    assert (low, high) == pytest.approx((share - spread, share + spread), abs=0.04)
    assert metrics.group_bootstrap_interval(values, groups) == (low, high)


def test_mcnemar_is_the_exact_binomial_test():
    first = torch.tensor([True] * 9 + [False] * 2 + [True] * 50)
    second = torch.tensor([False] * 9 + [True] * 2 + [True] * 50)
    b, c, p = metrics.mcnemar(first, second)
    assert (b, c) == (9, 2)
    assert p == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert metrics.mcnemar(first, first) == (0, 0, 1.0)


def test_psnr_of_a_constant_offset():
    x = torch.full((2, 1, 16, 16), 0.5)
    assert metrics.psnr(x + 0.1, x).tolist() == pytest.approx([20.0, 20.0], abs=1e-5)
    assert metrics.psnr(x, x).isinf().all()


def test_ssim_is_the_published_formula():
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.random((48, 40)), 1.5)
    b = np.clip(a + rng.normal(0, 0.03, a.shape), 0, 1)

    def smooth(z):
        return ndimage.gaussian_filter(z, 1.5, truncate=3.5)

    ma, mb = smooth(a), smooth(b)
    va, vb, cov = smooth(a * a) - ma**2, smooth(b * b) - mb**2, smooth(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    full = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    expected = full[5:-5, 5:-5].mean()
    pair = [torch.from_numpy(z)[None, None] for z in (a, b)]
    assert metrics.ssim(*pair).item() == pytest.approx(expected, abs=1e-9)
    assert metrics.ssim(pair[0], pair[0]).item() == pytest.approx(1.0)


def test_what_cannot_be_measured_is_refused():
    p, y = torch.tensor([0.2, 0.8]), torch.tensor([1, 1])
    with pytest.raises(ValueError, match="no scan of class 0"):
        metrics.specificity(p, y)
    with pytest.raises(ValueError, match="not a number"):
        metrics.auroc(torch.tensor([math.nan, 0.5]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one value per label"):
        metrics.accuracy(p, torch.tensor([1]))
    with pytest.raises(ValueError, match="got 3 of 2"):
        metrics.wilson_interval(3, 2)
