"""Noise-predicting U-Net (section III-B2, Eq. 11-12): DoubleConv blocks, skips, time encoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.memoize import once


@dataclass(frozen=True)
class UNetConfig:
    """Widths of the levels and of the time embedding, and the pixel-unshuffle factor.

    `unshuffle` folds squares of pixels into channels before the first level and back after the
    last: 4 runs the network on 56 x 56 instead of 224 x 224, about fifteen times cheaper.
    """

    in_chans: int = 1
    unshuffle: int = 4
    channels: tuple[int, ...] = (64, 96, 128)
    time_dim: int = 128

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or self.unshuffle < 1:
            raise ValueError(f"need at least two levels and unshuffle of 1 or more, got {self}")
        if any(c % 8 for c in self.channels):
            raise ValueError(f"channels must be multiples of 8, got {self.channels}")
        if self.time_dim < 2 or self.time_dim % 2:
            raise ValueError(f"time_dim must be even, got {self.time_dim}")


class UNet(nn.Module):
    """U-Net noise_pred(x_t, t), without a schedule."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, folded = config.channels, config.in_chans * config.unshuffle**2
        self.time = nn.Sequential(
            nn.Linear(config.time_dim, config.time_dim),
            nn.SiLU(),
            nn.Linear(config.time_dim, config.time_dim),
            nn.SiLU(),
        )
        self.down = nn.ModuleList(
            DoubleConv(c_in, c_out, config.time_dim)
            for c_in, c_out in zip((folded, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(
            DoubleConv(deep + skip, skip, config.time_dim)
            for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.out = nn.Conv2d(widths[0], folded, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    @once
    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise, of the shape of x_t (B, C, H, W), for t (B,) int64.

        H and W must be multiples of unshuffle * 2^(levels - 1).
        """
        emb = self.time(time_embedding(t, self.config.time_dim).to(x_t.dtype))
        h = F.pixel_unshuffle(x_t, self.config.unshuffle)
        skips = []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h, emb)
            skips.append(h)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            h = block(
                torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), skip], dim=1), emb
            )
        return F.pixel_shuffle(self.out(h), self.config.unshuffle)


class DoubleConv(nn.Module):
    """Two 3 x 3 convolutions with group norm and SiLU, shifted by the time embedding in between."""

    def __init__(self, in_chans: int, out_chans: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, out_chans)
        self.shift = nn.Linear(time_dim, out_chans)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, out_chans)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return (B, out_chans, H, W) from (B, in_chans, H, W) and (B, time_dim)."""
        h = F.silu(self.norm1(self.conv1(x)) + self.shift(emb)[:, :, None, None])
        return F.silu(self.norm2(self.conv2(h)))


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Embed t (B,) as sines and cosines at geometric frequencies (Eq. 12): (B, dim) float32.

    Differs from Eq. 12: sines first, then cosines, and each pair shares one frequency.
    """
    half = dim // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
