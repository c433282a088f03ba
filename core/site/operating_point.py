"""Operating point of a new site, from the log-odds of its own scans, without labels.

Unsupervised prediction alignment (Nat. Commun. 2023, s41467-023-42396-y) maps a site's quantiles of
log-odds to the reference's, piecewise linear and monotone. Answers depend on the crossing alone:
the site's quantile that the map moves to 0, below which lies the same share of scans as lies below
0 in the reference. Of a reference with as many false positives as false negatives that is the share
without a tumour: no figure of the reference is needed, and none is stored. A shift by the crossing
gives the answers of the whole map, and shares of the log-odds still add up.

The prevalence is assumed, not known: answers that differ from it by at most `TOLERANCE` stay, and
others are moved no further. On validation scans this kept readers that needed no shift, and cost
half as much where the prevalence was another, for a fifth of the gain where it was right.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.classifier import Calibrated

TOLERANCE = 0.1  # of the prevalence
GRID = 0.05  # of shifts: an exact crossing would tell the log-odds of the scan beside it


class SiteError(ValueError):
    """Scans that set no operating point; the message is one sentence for users."""


def find_shift(log_odds: Tensor, prevalence: float) -> float:
    """Return the least that is added to log-odds (N,) to have the assumed share of them above 0.

    The share is `prevalence` give or take `TOLERANCE`, of at least one scan and not of all. The
    crossing is the middle between two scans, rounded to `GRID`: to the nearest of the two steps
    beside it that keeps the share, or to the nearest where neither does. Fewer than two scans have
    no such share, and nothing is added.
    """
    if len(log_odds) < 2:
        return 0.0
    n, now = len(log_odds), int((log_odds >= 0).sum())
    least = max(math.ceil((prevalence - TOLERANCE) * n - 1e-9), 1)
    most = min(math.floor((prevalence + TOLERANCE) * n + 1e-9), n - 1)
    above = min(max(now, least), most)
    if above == now:
        return 0.0
    order = log_odds.double().sort().values
    crossing = float(order[n - above - 1] + order[n - above]) / 2
    steps = crossing / GRID
    beside = sorted((math.floor(steps), math.ceil(steps)), key=lambda k: abs(k - steps))
    kept = [k for k in beside if least <= int((log_odds - k * GRID >= 0).sum()) <= most]
    return -(kept or beside)[0] * GRID


def shift_log_odds(classifier: Calibrated, shift: float) -> None:
    """Add `shift` to the log-odds of a classifier of two classes, in place."""
    classifier.bias += torch.tensor([-shift / 2, shift / 2]).to(classifier.bias)
