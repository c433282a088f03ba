"""Backward pass differentiable approximation (Athalye et al. 2018): what stands in for a gradient.

Where a defence has no useful gradient, an attacker runs it forward as it is and goes back through
something simpler.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def straight_through(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return change(x) forward and the identity backward: for changes that alter a scan little."""
    with torch.no_grad():
        changed = change(x)
    return changed + (x - x.detach())
