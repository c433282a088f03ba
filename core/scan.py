"""Any picture file to the one canonical scan that every other part works on.

A canonical scan is grey, float32, (1, 224, 224), in [0, 1]: padded with black to a square, resized
with antialiasing, and on the 8-bit grid (every value is k / 255). The grid makes a scan, its PNG
and the cached training array the same numbers, so an attacked scan that is saved and opened again
is bit for bit the same.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SIZE = 224
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 32
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A brain MRI is grey. A picture counts as colour when more than this share of its pixels differ
# between their strongest and weakest channel by more than 24 of 255 levels. Measured: of 8,812
# scans, some with coloured marks, the most colourful has 8 %; 88 % of ordinary small photographs
# have more.
COLOUR_SHARE = 0.10
COLOUR_LEVELS = 24

_WARNINGS = threading.Lock()  # Python's warning filters belong to the process, not to a thread


class ScanError(ValueError):
    """A file that cannot be read as a scan; the message is one sentence for a clinician."""


class NotAnMRIError(ScanError):
    """A picture that does not look like a brain MRI; `any_picture=True` reads it all the same."""


def read_scan(
    source: str | Path | bytes | Image.Image, *, any_picture: bool = False, size: int = SIZE
) -> Tensor:
    """Reads one picture as a canonical scan.

    Args:
        source: a path, the bytes of a file, or an open PIL picture (PNG, JPEG, BMP, TIFF or WebP).
        any_picture: read colour photographs too, which are refused otherwise.
        size: side of the square result in pixels.

    Returns:
        Grey float32 tensor (1, size, size) in [0, 1], every value a multiple of 1 / 255.

    Raises:
        ScanError: the file is missing, empty, too large, damaged, animated, blank, or no picture.
        NotAnMRIError: the picture is a colour photograph.
    """
    try:
        with _WARNINGS, warnings.catch_warnings():
            # Pillow warns of odd metadata (the pixels decide) and of sizes (checked here)
            warnings.simplefilter("ignore")
            picture = _upright(_decode(source))
    except ScanError:
        raise
    except Image.DecompressionBombError:
        raise ScanError(_too_many_pixels()) from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        raise ScanError("The file is damaged or incomplete and cannot be opened.") from error
    return _canonical(_grey(picture, any_picture), size)


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


def _decode(source: str | Path | bytes | Image.Image) -> Image.Image:
    picture = source if isinstance(source, Image.Image) else _open(source)
    if picture.width * picture.height > MAX_PIXELS:
        raise ScanError(_too_many_pixels())
    if getattr(picture, "is_animated", False):
        raise ScanError(
            "The file holds several pictures or an animation: save the one to be read on its own."
        )
    if min(picture.size) < MIN_SIDE:
        raise ScanError(
            f"The picture is only {picture.width} x {picture.height} pixels: "
            f"at least {MIN_SIDE} x {MIN_SIDE} are needed."
        )
    picture.load()
    return picture


def _open(source: str | Path | bytes) -> Image.Image:
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        if not path.is_file():
            raise ScanError("There is no such file.")
        if path.stat().st_size > MAX_BYTES:
            raise ScanError(_too_large())
        data = path.read_bytes()
    if not data:
        raise ScanError("The file is empty.")
    if len(data) > MAX_BYTES:
        raise ScanError(_too_large())
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ScanError(
            "The file is not a picture that can be read here: PNG, JPEG, BMP, TIFF and WebP can."
        ) from None


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, where that can be read."""
    with contextlib.suppress(Exception):  # broken metadata: the pixels are still good
        return ImageOps.exif_transpose(picture)
    return picture


def _canonical(grey: np.ndarray, size: int) -> Tensor:
    """Pads (H, W) float32 in [0, 1] to a black square, resized and put on the 8-bit grid."""
    if grey.max() - grey.min() < 4 / 255:
        shade = "black" if grey.max() < 0.1 else "white" if grey.min() > 0.9 else "grey"
        raise ScanError(f"The picture is blank: it is {shade} all over.")
    shrink = max(grey.shape) // (8 * size)  # a huge or long picture makes no huge square
    if shrink > 1:
        grey = np.asarray(Image.fromarray(grey).reduce(shrink))
    height, width = grey.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = grey
    if side != size:
        resized = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)
        square = np.asarray(resized, dtype=np.float32)
    return from_uint8(np.rint(square.clip(0, 1) * 255).astype(np.uint8))[None]


def _grey(picture: Image.Image, any_picture: bool) -> np.ndarray:
    """Grey values in [0, 1]; transparent parts count as black."""
    if picture.mode == "F":
        return _scaled(np.asarray(picture, dtype=np.float32))
    if picture.mode.startswith("I"):
        return _scaled(np.asarray(picture).astype(np.float32))
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"), dtype=np.float32) / 255
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    rgb = picture.convert("RGB")
    if not any_picture and _colour_share(rgb) > COLOUR_SHARE:
        raise NotAnMRIError(
            "This does not look like a brain MRI: it is a colour picture, and an MRI is grey."
        )
    return np.asarray(rgb.convert("L"), dtype=np.float32) / 255


def _colour_share(rgb: Image.Image) -> float:
    small = rgb.copy()
    small.thumbnail((256, 256))
    channels = np.asarray(small, dtype=np.int16)
    return float((channels.max(-1) - channels.min(-1) > COLOUR_LEVELS).mean())


def _scaled(values: np.ndarray) -> np.ndarray:
    """Deep pictures over their range: 1, 255, 4095 (12-bit scanners) or 65535, whichever fits."""
    if not np.isfinite(values).all():
        raise ScanError("The picture holds values that are not numbers.")
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return (values - low) / max(high - low, math.ulp(1.0))
    top = next((t for t in (1.0, 255.0, 4095.0, 65535.0) if high <= t), high)
    return values / top


def _too_large() -> str:
    return f"The file is larger than {MAX_BYTES // 2**20} MB."


def _too_many_pixels() -> str:
    return f"The picture has more than {MAX_PIXELS // 1_000_000} million pixels."
