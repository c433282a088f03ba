"""Transplants: tumours put into healthy scans, healthy tissue likewise, and tumours covered.

A source that holds tumours of one style and healthy scans of another teaches the style. A tumour
with its mask is moved into a healthy scan, where the levels around it fit, or only its shape, in
which the tissue turns brighter or darker; as many scans get a piece of healthy tissue in the same
way and keep their label, so that a seam says nothing. A covered tumour is the reverse: tissue of
the same scan lies over it and the label is 'no tumour'; in as many scans it lies beside the tumour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.dataset import Sample
from train.data.styles import find_head

MIN_AREA, MAX_AREA = 0.002, 0.10  # of the picture, of what is moved
MIN_INSIDE = 0.95  # share of it that must lie in the head
RIM = 4  # pixels of 112 that the surroundings reach, and that the edge of the head is kept free
MIN_SPREAD = 0.02  # standard deviation of the surroundings, at least
TRIES = 4  # places that are tried for the tissue that covers
MIN_SHADE, MAX_SHADE = 1.5, 4.0  # change of the tissue in a moved shape, in these


@dataclass(frozen=True)
class TransplantConfig:
    """Shares of the batch: with a tumour or healthy tissue moved into it, with a tumour covered."""

    tumour: float = 0.0
    healthy: float = 0.0
    covered: float = 0.0  # and as many with tissue of the same size covered
    reverse: float = 0.3  # share of what is moved that is dark instead of bright, or reversed
    shade: float = 0.5  # share of the moved tumours of which only the shape is


def transplant(sample: Sample, config: TransplantConfig, generator: torch.Generator) -> Sample:
    """Return the batch with tumours and healthy tissue moved into some of its healthy scans.

    In some of its scans with a tumour that is covered, in others tissue beside it. Scans
    (B, 1, H, W), masks of the same size, and `is_outlined` must be known. What does not fit where
    it was to be put is left out; without a tumour to move nothing changes.
    """
    x, y, masks, is_outlined = (t.clone() for t in sample if t is not None)
    g, area = generator, masks.mean((1, 2, 3))
    fits = (area > MIN_AREA) & (area < MAX_AREA)
    healthy = torch.nonzero(y == 0)[:, 0]
    donors = torch.nonzero((y == 1) & is_outlined & fits)[:, 0]
    if not len(donors) or not len(healthy):
        return sample
    order = healthy[torch.randperm(len(healthy), generator=g).to(x.device)]
    count, other = round(config.tumour * len(x)), round(config.healthy * len(x))
    hosts, hosts_of_none = order[:count], order[count : count + other]
    if len(hosts):
        chosen = _draw_each(donors, len(hosts), g)
        moved = _move(x[chosen], masks[chosen], x[hosts], config, g)
        rows = hosts[moved.fits]
        x[rows], masks[rows] = moved.x[moved.fits], moved.shape[moved.fits]
        y[rows], is_outlined[rows] = 1, True
    if len(hosts_of_none):  # a tumour's shape, filled with what lies there in a healthy scan
        shapes = masks[_draw_each(donors, len(hosts_of_none), g)]
        pieces = sample.x[_draw_each(healthy, len(hosts_of_none), g)]
        moved = _move(pieces, shapes, x[hosts_of_none], replace(config, shade=0.0), g)
        fits = moved.fits & _is_inside(shapes, _find_deep(pieces))  # no skull into a brain
        x[hosts_of_none[fits]] = moved.x[fits]
    donors = donors[torch.randperm(len(donors), generator=g).to(x.device)]
    count = min(round(config.covered * len(x)), len(donors) // 2)
    for rows, beside in ((donors[:count], False), (donors[count : 2 * count], True)):
        if len(rows):
            covered, fits = _cover(x[rows], masks[rows], beside, g)
            rows = rows[fits]
            x[rows] = covered[fits]
            if not beside:
                y[rows], masks[rows] = 0, 0.0
    return Sample(x, y, masks, is_outlined)


class _Moved(NamedTuple):
    x: Tensor  # (N, 1, H, W)
    shape: Tensor  # (N, 1, H, W) of what was moved
    fits: Tensor  # (N,) bool: it lies in the head and has a fit size


def _move(
    donor: Tensor, shape: Tensor, host: Tensor, config: TransplantConfig, g: torch.Generator
) -> _Moved:
    """Move each donor's region `shape` to a place in its host's head, turned and resized."""
    n, deep = len(host), _find_deep(host)
    place = _draw_places(deep, g)
    theta = _draw_transforms(_find_centres(shape), place, g)
    piece, shape = _sample(donor, theta), _sample(shape, theta)
    area = shape.mean((1, 2, 3))
    fits = (area > MIN_AREA) & (area < MAX_AREA) & _is_inside(shape, deep)
    sign = torch.where(torch.rand(n, generator=g) < config.reverse, -1.0, 1.0)
    contrast = (sign * torch.exp(_draw_unit(n, g) * math.log(1.5))).view(-1, 1, 1, 1).to(host)
    fitted, spread = _fit_levels(piece, host, shape, contrast)
    depth = sign * (MIN_SHADE + (MAX_SHADE - MIN_SHADE) * torch.rand(n, generator=g))
    shaded = host + depth.view(-1, 1, 1, 1).to(host) * spread
    is_shaded = (torch.rand(n, generator=g) < config.shade).view(-1, 1, 1, 1).to(host.device)
    fitted = torch.where(is_shaded, shaded, fitted)
    return _Moved(_blend(fitted, host, shape), shape, fits)


def _cover(x: Tensor, masks: Tensor, beside: bool, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cover each scan's tumour, or the same shape `beside` it, with the scan's own other tissue.

    Returns:
        The scans (N, 1, H, W), and where a place was found, bool (N,); the others stay as they are.
    """
    rim, done = _find_rim(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    near = F.max_pool2d(masks, 2 * (rim // 2) + 1, 1, rim // 2)  # the tumour with its edge
    free = _find_deep(x) * (1 - near)
    covered = x.clone()
    for _ in range(TRIES):
        shape, fits = near, ~done
        if beside:
            theta = _draw_transforms(_find_centres(near), _draw_places(free, g), g)
            shape = _sample(near, theta)
            fits = fits & _is_inside(shape, free)
        theta = _draw_transforms(_draw_places(free, g), _find_centres(shape), g)
        piece = _sample(x, theta)
        fits = fits & _is_inside(shape, _sample(free, theta))
        fitted, _ = _fit_levels(piece, x, shape)
        covered[fits], done = _blend(fitted, x, shape)[fits], done | fits
    return covered, done


def _fit_levels(
    piece: Tensor, host: Tensor, shape: Tensor, contrast: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """Give tissue the levels around its place; return it and the spread (N, 1, 1, 1) there."""
    rim = _find_rim(host)
    ring = (F.max_pool2d(shape, 2 * rim + 1, 1, rim) - shape).clamp_min(0)
    (mean, spread), (own_mean, own_spread) = _measure(host, ring), _measure(piece, ring)
    return mean + (piece - own_mean) * contrast * (spread / own_spread).clamp(0.5, 2), spread


def _blend(piece: Tensor, host: Tensor, shape: Tensor) -> Tensor:
    """Lay tissue over scans where the shape is, with soft edges."""
    return (host + F.avg_pool2d(shape, 3, 1, 1) * (piece - host)).clamp(0, 1)


def _sample(values: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode="bilinear", align_corners=False)


def _find_rim(x: Tensor) -> int:
    return max(1, round(RIM * x.shape[-1] / 112))


def _find_deep(x: Tensor) -> Tensor:
    """Return 1 where heads are, but for their edge, else 0: (N, 1, H, W)."""
    rim = _find_rim(x)
    return -F.max_pool2d(-find_head(x).float(), 2 * rim + 1, 1, rim)


def _is_inside(shape: Tensor, deep: Tensor) -> Tensor:
    """Mark the shapes (N, 1, H, W) that lie in `deep` almost as a whole, bool (N,)."""
    return (shape * deep).sum((1, 2, 3)) > MIN_INSIDE * shape.sum((1, 2, 3))


def _measure(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and standard deviation of each scan, (N, 1, 1, 1)."""
    total = weight.sum((1, 2, 3), keepdim=True).clamp_min(1e-6)
    mean = (x * weight).sum((1, 2, 3), keepdim=True) / total
    variance = ((x - mean).square() * weight).sum((1, 2, 3), keepdim=True) / total
    return mean, variance.sqrt().clamp_min(MIN_SPREAD)


def _find_centres(shape: Tensor) -> Tensor:
    """Return each mask's centre (N, 2) as x, y in [-1, 1]."""
    h, w = shape.shape[2:]
    total = shape.sum((1, 2, 3)).clamp_min(1e-6)
    lines = [(torch.arange(k).to(shape) + 0.5) * 2 / k - 1 for k in (w, h)]
    x = (shape[:, 0].sum(1) * lines[0]).sum(1) / total
    y = (shape[:, 0].sum(2) * lines[1]).sum(1) / total
    return torch.stack([x, y], 1)


def _draw_places(deep: Tensor, g: torch.Generator) -> Tensor:
    """Draw a point of each head, (N, 2) as x, y in [-1, 1]."""
    h, w = deep.shape[2:]
    weight = deep.flatten(1).cpu() + 1e-9
    position = torch.multinomial(weight, 1, generator=g)[:, 0]
    row, column = position // w, position % w
    place = torch.stack([(column + 0.5) * 2 / w - 1, (row + 0.5) * 2 / h - 1], 1)
    return place.to(deep)


def _draw_transforms(centre: Tensor, place: Tensor, g: torch.Generator) -> Tensor:
    """Return matrices (N, 2, 3) that turn and resize about `centre` and move it to `place`."""
    n = len(centre)
    angle = _draw_unit(n, g) * math.pi
    size = torch.exp(_draw_unit(n, g) * math.log(1.5))
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() / size, angle.sin() / size
    matrix = torch.stack(
        [torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1
    ).to(centre)
    shift = centre - (matrix @ place[:, :, None])[:, :, 0]
    return torch.cat([matrix, shift[:, :, None]], 2)


def _draw_each(rows: Tensor, count: int, g: torch.Generator) -> Tensor:
    """Draw `count` rows, with repetitions."""
    return rows[torch.randint(len(rows), (count,), generator=g).to(rows.device)]


def _draw_unit(n: int, g: torch.Generator) -> Tensor:
    """Draw n numbers in [-1, 1]."""
    return torch.rand(n, generator=g) * 2 - 1
