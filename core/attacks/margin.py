"""How far a scan is from being misread, whatever the number of classes."""

from __future__ import annotations

import torch
from torch import Tensor


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best other logit minus the true one, (B,): above 0 where a scan is misread."""
    true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - true
