"""Explanation of a mixture's answer: tumour maps, and shares of its log-odds that add up.

The log-odds L of the mixture's probability p = sum_k a_k p_k are attributed to the experts along
the straight line from 'all experts say .5' to what they say (integrated gradients, Sundararajan et
al. 2017). On it the integral is closed: share_k = L a_k (p_k - .5) / (p - .5).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.classifier import Calibrated
from core.moe import MixtureOutput

TIE = 1e-4  # closer to p = .5 the ratio L / (p - .5) is its limit, 4


class Explanation(NamedTuple):
    """Explanation of B scans' answers by K experts."""

    shares: Tensor  # (B, K) of the log-odds of a tumour; their sum + `operating_point` is the whole
    overall: Tensor  # (B,) part of the shares' sum that comes from global features, not from maps
    operating_point: float  # log-odds that the calibration adds
    maps: Tensor | None  # (B, K, h, w) probability of a tumour in each cell, by expert
    mixed: Tensor | None  # (B, h, w) the maps weighted by the attention


def explain(classifier: Calibrated, output: MixtureOutput) -> Explanation:
    """Explain the calibrated answer of a classifier of two classes by its output."""
    log_odds = output.logits[:, 1] - output.logits[:, 0]
    off = output.logits[:, 1].exp() - 0.5
    ratio = torch.where(off.abs() < TIE, 4.0, log_odds / off)[:, None] / classifier.temperature
    votes = output.expert_logits.softmax(2)[:, :, 1] - 0.5
    shares = ratio * output.attention * votes
    point = float(classifier.bias[1] - classifier.bias[0])
    if not output.maps:
        return Explanation(shares, shares.sum(1), point, None, None)
    local = torch.stack([m.local for m in output.maps], 1)
    overall = torch.stack([m.overall for m in output.maps], 1)
    # near 0 an expert's vote is a quarter of its log-odds
    whole = local + overall
    slope = torch.where(whole.abs() < TIE, 0.25, votes / whole)
    maps = torch.stack([m.probability for m in output.maps], 1)
    mixed = (output.attention[:, :, None, None] * maps).sum(1)
    part = (ratio * output.attention * slope * overall).sum(1)
    return Explanation(shares, part, point, maps, mixed)
