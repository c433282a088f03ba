"""Outlined tumours: their contrast, and patches that occlude them."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.robustness.filters import gaussian

RING = 8  # pixels around the lesion that it is compared with
MARGIN = 3  # pixels around the outline that are occluded
EDGE_SIGMA = 2.0  # of the occlusion's soft edge, in pixels
MAX_MIRROR_SHIFT = 48  # pixels by which the mirror image is moved at most
TISSUE_LEVEL = 0.08  # pixels below this are background
MIN_TISSUE_SHARE = 0.9  # of a control patch
PATCH_STEP, MAX_PATCH_DISTANCE = 8, 96  # pixels: grid and reach of the search for a control patch


def measure_contrast(x: Tensor, mask: Tensor) -> float:
    """Returns the mean of the lesion minus the mean of the ring around it; x (1, H, W)."""
    ring = widen(mask, RING) & ~mask
    if not ring.any():
        raise ValueError("the lesion fills the scan: nothing to compare it with")
    return float(x[0][mask].mean() - x[0][ring].mean())


def widen(mask: Tensor, pixels: int = MARGIN) -> Tensor:
    """Returns the mask (H, W) bool with a margin of so many pixels."""
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


def find_midline(x: Tensor) -> int:
    """Returns the shift to the right at which the mirror image of a scan (1, H, W) fits it best."""
    shifts = range(-MAX_MIRROR_SHIFT, MAX_MIRROR_SHIFT + 1)
    errors = torch.stack([(x - mirror(x, shift)).square().mean() for shift in shifts])
    return shifts[int(errors.argmin())]


def mirror(values: Tensor, shift: int) -> Tensor:
    """Returns the mirror image of (..., H, W), moved to the right by `shift` pixels."""
    return values.flip(-1).roll(shift, -1)


def occlude(x: Tensor, mask: Tensor, shift: int) -> Tensor:
    """Fills the mask (H, W) bool of a scan (1, H, W) from its mirror image, with a soft edge."""
    soft = gaussian(mask[None, None].to(x), EDGE_SIGMA)[0]
    share = torch.maximum(2 * soft, mask[None].to(x)).clamp_max(1)  # half at the edge, whole inside
    return x + share * (mirror(x, shift) - x)


def find_control_patch(x: Tensor, mask: Tensor, shift: int) -> Tensor | None:
    """Returns the mask moved to the nearest tissue that holds no tumour, or None.

    Neither the patch nor its mirror image, which it is filled from, touches the mask or the mask's
    mirror image.
    """
    tissue = F.avg_pool2d(x[None], 9, stride=1, padding=4)[0, 0] > TISSUE_LEVEL
    taken, size = mask | mirror(mask, shift), int(mask.sum())
    steps = range(-MAX_PATCH_DISTANCE, MAX_PATCH_DISTANCE + 1, PATCH_STEP)
    for dy, dx in sorted(itertools.product(steps, steps), key=lambda d: d[0] ** 2 + d[1] ** 2):
        patch = _move(mask, dy, dx)
        both = patch | mirror(patch, shift)
        if int(patch.sum()) != size or bool((both & taken).any()):
            continue
        if float(tissue[both].float().mean()) >= MIN_TISSUE_SHARE:
            return patch
    return None


def _move(mask: Tensor, dy: int, dx: int) -> Tensor:
    """Returns the mask moved down and to the right; what leaves the image is lost."""
    h, w = mask.shape
    moved = torch.zeros_like(mask)
    inside = mask[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
    moved[max(0, dy) : h - max(0, -dy), max(0, dx) : w - max(0, -dx)] = inside
    return moved
