"""Grad-CAM (Selvaraju et al. 2017) of each expert.

A feature map is weighted by how much the output would rise with it, the maps are added up, and what
speaks against the output is cut off. It shows what the model used, not where a disease is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from core.moe import Expert, MixtureOfExperts


class Cams(NamedTuple):
    """Maps of B scans and K experts, non-negative, in log-odds: one unit for all of them."""

    mixture: Tensor  # (B, H, W) the experts' maps, weighed by the attention
    experts: Tensor  # (B, K, H, W)


def grad_cam(model: MixtureOfExperts, x: Tensor, y: Tensor) -> Cams:
    """Compute each expert's Grad-CAM for class y (B,), at the size of the scans (B, C, H, W).

    The mixture's map is the mean of the experts', weighted by their attention; what moved the
    attention itself is not in it. Parameters' `.grad` stays as it was.
    """
    with torch.no_grad():
        attention = model.outputs(x).attention
    cams = []
    for expert in cast(Sequence[Expert], model.experts):
        with torch.no_grad():
            maps = expert.maps(x)
        with torch.enable_grad():  # from the maps on is all that is needed
            maps.requires_grad_()
            score = odds(expert.head(maps.mean((2, 3))).float(), y)
            (grad,) = torch.autograd.grad(score.sum(), maps)
        cams.append(place(weigh(maps.detach(), grad), x.shape[-1], expert.side))
    experts = torch.stack(cams, dim=1)
    return Cams((attention[:, :, None, None] * experts).sum(1), experts)


def odds(logits: Tensor, y: Tensor) -> Tensor:
    """Log-odds (B,) of class y (B,) against all others, from logits (B, C).

    Differs from the paper: it takes the class's own logit, whose height means nothing without the
    others'.
    """
    own = F.one_hot(y, logits.shape[1]).bool()
    rest = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return logits.gather(1, y[:, None])[:, 0] - rest


def weigh(maps: Tensor, grad: Tensor) -> Tensor:
    """relu(sum_d w_d A_d) (B, h, w), with w_d the gradient summed over map d, from (B, D, h, w).

    Differs from the paper: it averages the gradient. A sum makes the mean of a map its share of the
    log-odds, to first order, whatever the map's size, so that experts can be compared and added.
    """
    weights = grad.sum((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu()


def place(cam: Tensor, img_size: int, side: int) -> Tensor:
    """Maps (B, h, h) at the scan's size, bilinear between the points where their cells lie.

    Spreading the cells evenly, as is usual, would show the coarsest ones a tenth of the scan too
    far right and down: with even sizes, a convolution of stride 2 looks at pixels 0, 2, 4, ...
    """
    stride = 2 ** round(math.log2(side / cam.shape[-1]))
    zoom = img_size // side
    pixel = torch.arange(img_size, device=cam.device, dtype=cam.dtype)
    cell = (pixel - (zoom - 1) / 2) / (zoom * stride)
    at = (2 * cell + 1) / cam.shape[-1] - 1  # cell 0's centre at -1 + 1 / h
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)
    placed = F.grid_sample(
        cam[:, None],
        grid.expand(len(cam), -1, -1, -1),
        padding_mode="border",
        align_corners=False,
    )
    return placed[:, 0]
