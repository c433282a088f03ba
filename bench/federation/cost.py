"""Cost of one reading, counted: parameters and multiply-adds, equal on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    parameters: int
    multiply_adds: int  # half of the FLOPs


@torch.no_grad()
def cost(module: nn.Module, reading: Callable[[], object]) -> Cost:
    """Parameters of the module, and multiply-adds of the call `reading`.

    For a mixture a reading is `lambda: model(x)`, for the whole system `lambda: system.read(scan)`:
    the latter's purification depends on the scan and on the policy. Counted are convolutions and
    products of matrices, attention's among them; what goes pixel by pixel is left out, as usual.
    """
    # attention's fused kernel for the CPU is not counted; as plain products it is, everywhere alike
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        reading()
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)
