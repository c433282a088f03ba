"""Device and precision of the training."""

from __future__ import annotations

import torch
from torch import Tensor

from core.attacks.base import LogitsFn


def pick_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """Return a context: bfloat16 where the hardware multiplies it natively, else float32."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def autocast_logits(logits_fn: LogitsFn, device: torch.device) -> LogitsFn:
    """Wrap `logits_fn` in `autocast` and channels-last, with float32 logits: for attacks."""

    def logits(x: Tensor) -> Tensor:
        with autocast(device):
            return logits_fn(x.contiguous(memory_format=torch.channels_last)).float()

    return logits
