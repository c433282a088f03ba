"""Paints an outlined tumour over with tissue from the brain's other side, or another place so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.components import lesions
from bench.robustness.filters import gaussian

REACH = 48  # pixels by which the mirror image is moved at most
MARGIN = 3  # pixels that are painted around the outline
SOFT = 2.0  # standard deviation of the paint's edge, in pixels
TISSUE = 0.08  # pixels below this are background
INSIDE = 0.9  # of a patch must be tissue
STEP, FAR = 8, 96  # pixels between the places that are tried, and to the farthest of them


def midline(x: Tensor) -> int:
    """How far to the right the mirror image of a scan (1, H, W) lies most like the scan."""
    shifts = range(-REACH, REACH + 1)
    errors = torch.stack([(x - reflected(x, shift)).square().mean() for shift in shifts])
    return shifts[int(errors.argmin())]


def reflected(values: Tensor, shift: int) -> Tensor:
    """The mirror image of (..., H, W), moved to the right by `shift` pixels."""
    return values.flip(-1).roll(shift, -1)


def widened(mask: Tensor) -> Tensor:
    """The mask (H, W) bool with `MARGIN` pixels around it."""
    return lesions.widened(mask, MARGIN)


def painted(x: Tensor, mask: Tensor, shift: int) -> Tensor:
    """The scan (1, H, W) with the mask (H, W) bool filled from its mirror image, softly outside."""
    soft = gaussian(mask[None, None].to(x), SOFT)[0]
    share = torch.maximum(2 * soft, mask[None].to(x)).clamp_max(1)  # half at the edge, whole inside
    return x + share * (reflected(x, shift) - x)


def elsewhere(x: Tensor, mask: Tensor, shift: int) -> Tensor | None:
    """The mask moved to the nearest place in the brain that holds nothing of it.

    Neither that place nor its mirror image, which it will be filled from, touches the mask or the
    mask's own mirror image. None where there is no such place.
    """
    tissue = F.avg_pool2d(x[None], 9, stride=1, padding=4)[0, 0] > TISSUE
    taken = mask | reflected(mask, shift)
    size = int(mask.sum())
    steps = range(-FAR, FAR + 1, STEP)
    for dy, dx in sorted(
        ((dy, dx) for dy in steps for dx in steps), key=lambda d: d[0] ** 2 + d[1] ** 2
    ):
        place = _moved(mask, dy, dx)
        both = place | reflected(place, shift)
        if int(place.sum()) != size or bool((both & taken).any()):
            continue
        if float(tissue[both].float().mean()) >= INSIDE:
            return place
    return None


def _moved(mask: Tensor, dy: int, dx: int) -> Tensor:
    """The mask moved down and to the right; what leaves the picture is lost."""
    h, w = mask.shape
    moved = torch.zeros_like(mask)
    inside = mask[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
    moved[max(0, dy) : h - max(0, -dy), max(0, dx) : w - max(0, -dx)] = inside
    return moved
