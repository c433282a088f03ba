"""Backward pass differentiable approximation, BPDA (Athalye et al. 2018).

A step of a defence without a useful gradient runs unchanged forward, and is replaced by a
differentiable approximation backward.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def straight_through(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return change(x) forward, with the identity backward: for steps that change a scan little."""
    with torch.no_grad():
        changed = change(x)
    return changed + (x - x.detach())
