"""Grad-CAM (Selvaraju et al. 2017) of each expert.

Feature maps are weighted by the gradient of the output, added up, and clipped at 0. A map shows
what the model used, not where a disease is.
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

    mixture: Tensor  # (B, H, W) the experts' maps, weighted by the attention
    experts: Tensor  # (B, K, H, W)


def grad_cam(model: MixtureOfExperts, x: Tensor, y: Tensor) -> Cams:
    """Compute each expert's Grad-CAM for class y (B,), at the size of the scans (B, C, H, W).

    The mixture's map is the mean of the experts' maps, weighted by their attention; it leaves out
    the gradient of the attention. Parameters' `.grad` stays as it was.
    """
    with torch.no_grad():
        attention = model.outputs(x).attention
    cams = []
    for expert in cast(Sequence[Expert], model.experts):
        with torch.no_grad():
            *finer, maps = expert.stages(x)
        with torch.enable_grad():  # only the part after the maps is needed
            maps.requires_grad_()
            score = compute_class_log_odds(expert.judge([*finer, maps]).logits.float(), y)
            (grad,) = torch.autograd.grad(score.sum(), maps)
        cams.append(resize_to_scan(weigh_maps(maps.detach(), grad), x.shape[-1], expert.side))
    experts = torch.stack(cams, dim=1)
    return Cams((attention[:, :, None, None] * experts).sum(1), experts)


def compute_class_log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Compute log-odds (B,) of class y (B,) against all others, from logits (B, C).

    Differs from Grad-CAM's paper, which takes the logit of the class; one logit means nothing
    without the others.
    """
    own = F.one_hot(y, logits.shape[1]).bool()
    rest = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return logits.gather(1, y[:, None])[:, 0] - rest


def weigh_maps(maps: Tensor, grad: Tensor) -> Tensor:
    """Return relu(sum_d w_d A_d) (B, h, w) of maps (B, D, h, w), w_d the summed gradient.

    Differs from Grad-CAM's paper, which averages the gradient. A sum makes the mean of a map its
    share of the log-odds, to first order, at any map size, so that experts can be compared.
    """
    weights = grad.sum((2, 3), keepdim=True)
    return (weights * maps).sum(1).relu()


def resize_to_scan(cam: Tensor, img_size: int, side: int) -> Tensor:
    """Resize maps (B, h, h) to the scan, bilinearly between the true centres of their cells.

    Evenly spaced cells, as is usual, would shift the coarsest map by a tenth of the scan right and
    down: with even sizes, a convolution of stride 2 is centred on pixels 0, 2, 4, ...
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
