"""Canonical scan: the one format that all other parts of the project work on.

A canonical scan is grey, float32, (1, 224, 224), in [0, 1]: padded with black to a square, resized
with antialiasing, and on the 8-bit grid (every value is k / 255). The grid makes a scan, its PNG
and the cached training array the same numbers, so an attacked scan that is saved and opened again
is bit for bit the same.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.scan.errors import ScanError

SIZE = 224
MIN_CONTRAST = 8 / 255  # below it a picture counts as blank
CONTRAST_PERCENTILES = (0.5, 99.5)  # contrast is measured between these


def to_canonical(grey: np.ndarray, size: int = SIZE) -> Tensor:
    """Convert (H, W) float32 in [0, 1]: pad to a black square, resize, round to the 8-bit grid.

    Raises:
        ScanError: the picture is blank but for a few bright or dark pixels.
    """
    shrink = max(grey.shape) // (8 * size)  # bounds the square of a huge or long picture
    if shrink > 1:
        grey = np.asarray(Image.fromarray(grey).reduce(shrink))
    low, high = np.percentile(grey, CONTRAST_PERCENTILES)
    if high - low < MIN_CONTRAST:
        shade = "black" if high < 0.1 else "white" if low > 0.9 else "grey"
        raise ScanError(f"The picture is blank: it is {shade} everywhere.")
    return from_uint8(np.rint(fit_square(grey, size).clip(0, 1) * 255).astype(np.uint8))[None]


def fit_square(grey: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Pad (H, W) float32 with black to a square and resize it, antialiased: (size, size)."""
    side = max(grey.shape)
    edges = [((side - n) // 2, (side - n + 1) // 2) for n in grey.shape]
    square = Image.fromarray(np.pad(grey, edges))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)


def to_image(scan: Tensor) -> Image.Image:
    """Convert a scan (1, H, W) in [0, 1] to an 8-bit grey picture; exact for canonical scans."""
    return Image.fromarray(to_uint8(scan)[0])


def to_uint8(scan: Tensor) -> np.ndarray:
    """Convert [0, 1] to levels 0..255 as uint8, rounded to nearest, same shape."""
    levels: np.ndarray = (scan.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return levels


def from_uint8(levels: np.ndarray) -> Tensor:
    """Convert uint8 levels to float32 in [0, 1], same shape: the inverse of `to_uint8`."""
    return torch.from_numpy(np.ascontiguousarray(levels)).to(torch.float32) / 255


def to_png(scan: Tensor) -> bytes:
    """Encode a scan as lossless PNG; `read_scan` of it gives the identical tensor."""
    buffer = io.BytesIO()
    to_image(scan).save(buffer, format="PNG")
    return buffer.getvalue()
