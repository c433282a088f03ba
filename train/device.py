"""Where training runs, and in which precision."""

from __future__ import annotations

import torch
from torch import Tensor

from core.attacks.base import LogitsFn


def pick_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def autocast_logits(logits_fn: LogitsFn, device: torch.device) -> LogitsFn:
    """`logits_fn` under `autocast` and channels-last, its logits in float32: for attacks."""

    def logits(x: Tensor) -> Tensor:
        with autocast(device):
            return logits_fn(x.contiguous(memory_format=torch.channels_last)).float()

    return logits
