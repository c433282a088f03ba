"""Augmentation: rotation, flips, scale, shift, intensity, noise, blur and erasing at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from core.steganalysis import blur


@dataclass(frozen=True)
class AugmentConfig:
    """Largest change of each kind; 0 disables it."""

    rotation: float = 15.0  # degrees
    scale: float = 0.12  # size between 1 - scale and 1 + scale
    shift: float = 0.05  # share of the side
    stretch: float = 0.05  # difference between the axes
    flip: bool = True  # left-right, half of the time
    upend: float = 0.0  # share of scans put upside down
    brightness: float = 0.05
    contrast: float = 0.20
    gamma: float = 0.25  # exponent between exp(-gamma) and exp(gamma)
    shading: float = 0.15  # a slow ramp of intensity, as surface coils cause
    noise: float = 0.015  # standard deviation, up to
    blur: float = 0.2  # share of scans averaged 3 x 3
    erase: float = 0.2  # share of scans with a random rectangle blanked


def augment(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return augmented copies of scans (B, C, H, W) in [0, 1], of the same shape and range."""
    x = _change_intensity(_transform(x, config, generator), config, generator)
    if config.erase:
        x = x.masked_fill(_draw_rectangles(x, config.erase, generator), 0.0)
    return x.clamp(0, 1)


def augment_with_masks(
    x: Tensor, masks: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return augmented scans (B, C, H, W) and their masks (B, 1, H, W), moved as the scans are.

    A rectangle that touches a tumour is not erased.
    """
    both = _transform(torch.cat([x, masks], 1), config, generator)
    x, masks = both[:, :-1], both[:, -1:]
    x = _change_intensity(x, config, generator)
    if config.erase:
        erased = _draw_rectangles(x, config.erase, generator)
        is_free = (masks * erased).flatten(1).amax(1) == 0
        x = x.masked_fill(erased & is_free.view(-1, 1, 1, 1), 0.0)
    return x.clamp(0, 1), masks


def _transform(x: Tensor, c: AugmentConfig, g: torch.Generator) -> Tensor:
    b = len(x)
    angle = _draw_symmetric(b, g) * math.radians(c.rotation)
    size = 1 / (1 + _draw_symmetric(b, g) * c.scale)
    aspect = 1 + _draw_symmetric(b, g) * c.stretch
    sx, sy = size * aspect, size / aspect
    if c.flip:
        sx = sx * _draw_signs(b, 0.5, g)
    if c.upend:
        sy = sy * _draw_signs(b, c.upend, g)
    cos, sin = angle.cos(), angle.sin()
    shift_x, shift_y = _draw_symmetric(b, g) * 2 * c.shift, _draw_symmetric(b, g) * 2 * c.shift
    theta = torch.stack(
        [
            torch.stack([sx * cos, -sy * sin, shift_x], 1),
            torch.stack([sx * sin, sy * cos, shift_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _change_intensity(x: Tensor, c: AugmentConfig, g: torch.Generator) -> Tensor:
    b, _, h, w = x.shape

    def per_scan(amount: float) -> Tensor:
        return (_draw_symmetric(b, g) * amount).view(-1, 1, 1, 1).to(x)

    x = x.clamp(0, 1).pow(per_scan(c.gamma).exp())
    if c.shading:
        ramp_y = torch.linspace(-1, 1, h).to(x).view(1, 1, h, 1)
        ramp_x = torch.linspace(-1, 1, w).to(x).view(1, 1, 1, w)
        x = x * (1 + per_scan(c.shading) * ramp_y + per_scan(c.shading) * ramp_x)
    # brightness acts on tissue: the background of an MRI stays black
    x = x * (1 + per_scan(c.contrast)) + per_scan(c.brightness) * (x > 0.04)
    if c.blur:
        soft = blur(x)
        x = torch.where(_draw_flags(b, c.blur, g).to(x.device).view(-1, 1, 1, 1), soft, x)
    if c.noise:
        sigma = torch.rand(b, generator=g).view(-1, 1, 1, 1) * c.noise
        x = x + (torch.randn(x.shape, generator=g) * sigma).to(x)
    return x


def _draw_rectangles(x: Tensor, share: float, g: torch.Generator) -> Tensor:
    """Mark a rectangle in a share of the scans, bool (B, 1, H, W)."""
    b, _, h, w = x.shape
    size = 0.08 + 0.14 * torch.rand(b, 2, generator=g)
    centre = torch.rand(b, 2, generator=g)
    y = torch.linspace(0, 1, h).view(1, h, 1)
    z = torch.linspace(0, 1, w).view(1, 1, w)
    inside = ((y - centre[:, :1, None]).abs() < size[:, :1, None] / 2) & (
        (z - centre[:, 1:, None]).abs() < size[:, 1:, None] / 2
    )
    inside &= _draw_flags(b, share, g).view(-1, 1, 1)
    return inside[:, None].to(x.device)


def _draw_symmetric(b: int, g: torch.Generator) -> Tensor:
    return torch.rand(b, generator=g) * 2 - 1


def _draw_flags(b: int, share: float, g: torch.Generator) -> Tensor:
    return torch.rand(b, generator=g) < share


def _draw_signs(b: int, share: float, g: torch.Generator) -> Tensor:
    return 1 - 2 * _draw_flags(b, share, g).float()
