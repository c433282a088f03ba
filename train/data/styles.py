"""Changes of style at random: what another scanner, sequence or preparation may change.

Geometry and tumour stay; contrast, sharpness, texture and skull may change. Each scan draws on its
own which changes it gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD_LEVEL = 0.08  # darker pixels may be background


@dataclass(frozen=True)
class StyleConfig:
    """Share of the batch that is restyled, and of these the share with each change; 0: none."""

    share: float = 0.0
    bias: float = 0.5  # slow multiplicative field
    gamma: float = 0.7  # exponent between 1 / 2 and 2
    soft: float = 0.3  # half or a third of the resolution
    texture: float = 0.4  # random shallow convolutions (GIN, Ouyang et al. 2021)
    amplitude: float = 0.2  # low frequencies of another scan
    invert: float = 0.07
    strip: float = 0.1  # skull and scalp taken off


def restyle(
    x: Tensor, masks: Tensor, config: StyleConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return scans (B, 1, H, W) in [0, 1] and tumour masks (B, 1, H, W), some in another style.

    A mask changes only where its skull is taken off with a part of the tumour.
    """
    count = round(len(x) * config.share)
    if not count:
        return x, masks
    g, some = generator, x[:count]
    head = find_head(some)
    if config.strip:
        some, masks = _strip(some, head, masks, config.strip, g)
        head = find_head(some)
    if config.amplitude:
        some = _choose(_mix_amplitudes(some, g), some, config.amplitude, g)
    if config.texture:
        some = _choose(_change_texture(some, g), some, config.texture, g)
    if config.gamma:
        exponent = (_draw(some, g) * 2 - 1) * math.log(2)
        some = _choose(some.clamp(0, 1) ** exponent.exp(), some, config.gamma, g)
    if config.invert:
        brightest = some.amax((2, 3), keepdim=True)
        some = _choose(torch.where(head, brightest - some, some), some, config.invert, g)
    if config.bias:
        some = _choose(some * _draw_fields(some, g), some, config.bias, g)
    if config.soft:
        side = some.shape[-1]
        small = F.interpolate(
            some, scale_factor=1 / 2 if _draw_one(g) < 0.7 else 1 / 3, mode="area"
        )
        soft = F.interpolate(small, (side, side), mode="bilinear")
        some = _choose(soft, some, config.soft, g)
    return torch.cat([some.clamp(0, 1), x[count:]]), masks


def find_head(x: Tensor) -> Tensor:
    """Mark what lies between head pixels in its row and its column, bool (B, 1, H, W)."""
    lit = F.avg_pool2d(x, 3, 1, 1) > HEAD_LEVEL
    sides = [lit.cummax(d).values & lit.flip(d).cummax(d).values.flip(d) for d in (2, 3)]
    return sides[0] & sides[1]


def _strip(
    x: Tensor, head: Tensor, masks: Tensor, share: float, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Keep what lies deep in the head; not where over 30 % of a tumour would be lost."""
    depth = round(int(torch.randint(3, 7, (1,), generator=g)) * x.shape[-1] / 112)
    brain = -F.max_pool2d(-head.float(), 2 * depth + 1, 1, depth)
    count = len(x)
    kept = masks[:count] * brain
    is_kept = kept.sum((1, 2, 3)) >= 0.7 * masks[:count].sum((1, 2, 3))
    chosen = (torch.rand(count, generator=g) < share).to(x.device) & is_kept
    chosen = chosen.view(-1, 1, 1, 1)
    masks = torch.cat([torch.where(chosen, kept, masks[:count]), masks[count:]])
    return torch.where(chosen, x * brain, x), masks


def _mix_amplitudes(x: Tensor, g: torch.Generator) -> Tensor:
    """Give each scan the lowest frequencies' amplitudes of another one of the batch, in part."""
    order = torch.randperm(len(x), generator=g).to(x.device)
    spectrum = torch.fft.rfft2(x)
    amplitude, phase = spectrum.abs(), spectrum.angle()
    low = torch.zeros_like(amplitude)
    reach = int(torch.randint(1, 4, (1,), generator=g))
    low[:, :, :reach, :reach] = low[:, :, -reach:, :reach] = 1
    weight = _draw(x, g) * low
    mixed = amplitude * (1 - weight) + amplitude[order] * weight
    changed: Tensor = torch.fft.irfft2(torch.polar(mixed, phase), s=x.shape[-2:])
    return changed


def _change_texture(x: Tensor, g: torch.Generator) -> Tensor:
    """Blend in random shallow convolutions, one network a scan, at the scan's own energy."""
    b, _, h, w = x.shape
    y, width = x.reshape(1, b, h, w), 2
    layers = int(torch.randint(1, 5, (1,), generator=g))
    inside = 1
    for layer in range(layers):
        outside = 1 if layer == layers - 1 else width
        size = 1 if _draw_one(g) < 0.5 else 3
        weight = torch.randn(b * outside, inside, size, size, generator=g).to(x)
        y = F.conv2d(y, weight, padding=size // 2, groups=b)
        y = y + torch.randn(1, b * outside, 1, 1, generator=g).to(x) * 0.1
        if layer < layers - 1:
            y = F.leaky_relu(y, 0.1)
        inside = outside
    y = y.reshape(b, 1, h, w)
    share = _draw(x, g)
    blend = share * y + (1 - share) * x
    energy = x.square().mean((2, 3), keepdim=True).sqrt()
    blend = blend * energy / blend.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return blend.clamp(0, 1)


def _draw_fields(x: Tensor, g: torch.Generator) -> Tensor:
    """Draw a slow field for each scan, the exponential of a quadratic surface."""
    line = torch.linspace(-1, 1, x.shape[-1]).to(x)
    v, h = torch.meshgrid(line, line, indexing="ij")
    terms = torch.stack([h, v, h * v, h * h - 1 / 3, v * v - 1 / 3])
    weights = (torch.rand(len(x), len(terms), generator=g).to(x) * 2 - 1) * 0.3
    return torch.einsum("bt,thw->bhw", weights, terms).exp()[:, None]


def _choose(changed: Tensor, x: Tensor, share: float, g: torch.Generator) -> Tensor:
    flags = (torch.rand(len(x), generator=g) < share).to(x.device)
    return torch.where(flags.view(-1, 1, 1, 1), changed, x)


def _draw(x: Tensor, g: torch.Generator) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, generator=g).to(x)


def _draw_one(g: torch.Generator) -> float:
    return float(torch.rand(1, generator=g))
