"""Metrics of a binary classifier and of pictures, with intervals.

Throughout, `probability` (N,) is that of class 1 ('tumour') in [0, 1], `y` (N,) holds 0 or 1, and a
scan is classified as a tumour from .5 on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Interval = tuple[float, float]


def accuracy(probability: Tensor, y: Tensor) -> float:
    """Return the accuracy: share of scans that are classified correctly."""
    return float(is_right(probability, y).double().mean())


def is_right(probability: Tensor, y: Tensor) -> Tensor:
    """Mark the scans that are classified correctly, bool (N,)."""
    _check(probability, y)
    return (probability >= 0.5) == (y == 1)


def sensitivity(probability: Tensor, y: Tensor) -> float:
    """Return the share of tumours found. Raises ValueError if `y` has none."""
    return float(is_right(probability, y)[_select_class(y, 1)].double().mean())


def specificity(probability: Tensor, y: Tensor) -> float:
    """Return the share of healthy scans classified so. Raises ValueError if `y` has none."""
    return float(is_right(probability, y)[_select_class(y, 0)].double().mean())


def balanced_accuracy(probability: Tensor, y: Tensor) -> float:
    """Return the mean of sensitivity and specificity."""
    return (sensitivity(probability, y) + specificity(probability, y)) / 2


def auroc(score: Tensor, y: Tensor) -> float:
    """Return the area under the ROC curve; a tie of a positive and a negative counts half.

    Raises:
        ValueError: a class is missing, or a score is not a number.
    """
    _check(score, y)
    positive, negative = score[_select_class(y, 1)], score[_select_class(y, 0)]
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, right=False)
    not_above = torch.searchsorted(ordered, positive, right=True)
    return float((below + not_above).double().mean() / 2 / len(ordered))


def tpr_at_fpr(score: Tensor, y: Tensor, fpr: float) -> float:
    """Return the TPR at the lowest threshold with a false-positive rate of at most `fpr`."""
    _check(score, y)
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr must be in [0, 1), got {fpr}")
    negative = score[_select_class(y, 0)].sort(descending=True).values
    tau = negative[math.floor(fpr * len(negative) + 1e-9)]
    return float((score[_select_class(y, 1)] > tau).double().mean())


def expected_calibration_error(probability: Tensor, y: Tensor, num_bins: int = 15) -> float:
    """Return the mean gap of confidence and accuracy over equal bins (Guo et al. 2017).

    Confidence is the probability of the predicted class, so it is in [.5, 1].
    """
    right = is_right(probability, y).double()
    confidence = torch.maximum(probability, 1 - probability).double()
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    gap = torch.zeros(num_bins, dtype=torch.float64)
    gap = gap.index_add(0, bins.cpu(), (right - confidence).cpu())
    return float(gap.abs().sum() / len(y))


def wilson_interval(k: int, n: int, z: float = 1.959964) -> Interval:
    """Return Wilson's score interval of a share k / n; z = 1.96 covers 95 %."""
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"need 0 <= k <= n and n >= 1, got {k} of {n}")
    share, spread = k / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def group_bootstrap_interval(
    values: Tensor,
    groups: Sequence[int],
    *,
    num_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the bootstrap percentile interval of the mean of `values` (N,), drawing whole groups.

    Near-duplicates are not independent: a group counts as one observation, however many scans it
    has, whereas Wilson's interval counts each scan.
    """
    if len(values) != len(groups) or not len(groups):
        raise ValueError(f"need one group per value, got {len(groups)} for {len(values)}")
    names, index = torch.unique(torch.as_tensor(list(groups)), return_inverse=True)
    sums = torch.zeros(len(names), dtype=torch.float64).index_add(0, index, values.double().cpu())
    sizes = torch.bincount(index, minlength=len(names)).double()
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(names), (num_draws, len(names)), generator=generator)
    means = sums[picked].sum(1) / sizes[picked].sum(1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def mcnemar(first: Tensor, second: Tensor) -> tuple[int, int, float]:
    """Return McNemar's exact test of two classifiers; inputs mark correct scans, bool (N,).

    Returns:
        Number of scans only the first classified correctly, only the second, and two-sided p.
    """
    if first.shape != second.shape:
        raise ValueError(f"need the same scans, got {tuple(first.shape)} and {tuple(second.shape)}")
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return b, c, min(1.0, 2 * tail / 2**n)


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Return PSNR (B,) in dB of pictures (B, C, H, W) in [0, 1]; inf where equal."""
    mse = (x.double() - reference.double()).square().flatten(1).mean(1)
    return -10 * mse.log10()


def ssim(x: Tensor, reference: Tensor, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity (B,) of pictures (B, C, H, W) in [0, 1].

    Wang et al. (2004): Gaussian window of 11 pixels, the mean over windows inside the picture.
    """
    if x.shape != reference.shape or x.ndim != 4 or min(x.shape[2:]) < 11:
        raise ValueError(
            f"need equal shapes (B, C, H, W) of 11 pixels or more, got {tuple(x.shape)}"
        )
    line = torch.exp(
        -0.5 * (torch.arange(-5, 6, dtype=torch.float64, device=x.device) / sigma) ** 2
    )
    line = line / line.sum()

    def smooth(z: Tensor) -> Tensor:
        z = F.conv2d(z.flatten(0, 1)[:, None], line.view(1, 1, 1, -1))
        return F.conv2d(z, line.view(1, 1, -1, 1))

    a, b = x.double(), reference.double()
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return (top / bottom).reshape(len(x), -1).mean(1)


def _check(values: Tensor, y: Tensor) -> None:
    if values.ndim != 1 or values.shape != y.shape or not len(y):
        raise ValueError(
            f"need one value per label, got {tuple(values.shape)} for {tuple(y.shape)}"
        )
    if not torch.isfinite(values).all():
        raise ValueError("a value is not a number")


def _select_class(y: Tensor, label: int) -> Tensor:
    members = y == label
    if not members.any():
        raise ValueError(f"no scan of class {label}")
    return members
