"""Steganalysis network: finds perturbations in the residual of a 3 x 3 blur.

Adversarial noise resembles a message hidden in a picture. As in steganalysis (Xu et al. 2016) the
network sees the high-pass residual, its magnitude, and statistics over the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

GAIN, CLIP = 32.0, 3.0  # one 8-bit level becomes 1 / 8; 24 levels are clipped


@dataclass(frozen=True)
class ResidualConfig:
    """Widths of the convolutions; the first keeps the resolution, each further one halves it."""

    in_chans: int = 1
    channels: tuple[int, ...] = (12, 16, 24, 32)

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError(f"need at least two widths of 1 or more, got {self.channels}")


class ResidualNet(nn.Module):
    """Network from scans (B, C, H, W) in [0, 1] to log-odds (B,) of a perturbation."""

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.first = nn.Conv2d(config.in_chans, widths[0], 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.rest = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            )
            for c_in, c_out in pairwise(widths)
        )
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return log-odds (B,), differentiable in the pixels."""
        return self.judge(self.maps(x))

    def maps(self, x: Tensor) -> Tensor:
        """Return the last feature maps (B, D, h, w)."""
        h: Tensor = (high_pass(x) * GAIN).clamp(-CLIP, CLIP)
        h = self.norm(self.first(h).abs())  # the sign of noise carries nothing, its magnitude does
        for block in self.rest:
            h = block(h)
        return h

    def judge(self, maps: Tensor) -> Tensor:
        """Return log-odds (B,) of a perturbation from the last feature maps."""
        log_odds: Tensor = self.out(maps.mean((2, 3)))[:, 0]
        return log_odds

    def judge_places(self, maps: Tensor) -> Tensor:
        """Return log-odds (B, h, w) of each place; `judge` returns their mean."""
        log_odds: Tensor = self.out(maps.movedim(1, -1))[..., 0]
        return log_odds


def blur(x: Tensor) -> Tensor:
    """Return the 3 x 3 mean with replicated edges, same shape."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def high_pass(x: Tensor) -> Tensor:
    """Return x minus its 3 x 3 mean, same shape."""
    return x - blur(x)
