"""The one canonical scan that every other part works on, and the 8-bit grid that it lies on.

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
BLANK = 8 / 255  # contrast below which a picture shows nothing
BUT_FEW = (0.5, 99.5)  # percentiles between which the contrast counts


def canonical(grey: np.ndarray, size: int = SIZE) -> Tensor:
    """Pads (H, W) float32 in [0, 1] to a black square, resized and put on the 8-bit grid.

    Raises:
        ScanError: there is next to nothing in it, a few bright or dark pixels aside.
    """
    shrink = max(grey.shape) // (8 * size)  # a huge or long picture makes no huge square
    if shrink > 1:
        grey = np.asarray(Image.fromarray(grey).reduce(shrink))
    low, high = np.percentile(grey, BUT_FEW)
    if high - low < BLANK:
        shade = "black" if high < 0.1 else "white" if low > 0.9 else "grey"
        raise ScanError(f"The picture is blank: it is {shade} all over.")
    height, width = grey.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = grey
    if side != size:
        resized = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)
        square = np.asarray(resized, dtype=np.float32)
    return from_uint8(np.rint(square.clip(0, 1) * 255).astype(np.uint8))[None]


def to_image(scan: Tensor) -> Image.Image:
    """The 8-bit grey picture of a scan (1, H, W) in [0, 1]; exact for canonical scans."""
    return Image.fromarray(to_uint8(scan)[0])


def to_uint8(scan: Tensor) -> np.ndarray:
    """Levels 0..255 as uint8, rounded to the nearest, same shape."""
    levels: np.ndarray = (scan.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return levels


def from_uint8(levels: np.ndarray) -> Tensor:
    """Float32 in [0, 1] from uint8 levels, same shape: the inverse of `to_uint8`."""
    return torch.from_numpy(np.ascontiguousarray(levels)).to(torch.float32) / 255


def to_png(scan: Tensor) -> bytes:
    """Lossless PNG file of a scan; `read_scan` of it gives the identical tensor."""
    buffer = io.BytesIO()
    to_image(scan).save(buffer, format="PNG")
    return buffer.getvalue()
