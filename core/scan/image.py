"""PNG, JPEG, BMP, TIFF and WebP to grey levels."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.scan.errors import MAX_PIXELS, NotAnMRIError, ScanError, check_pixels, not_numbers_error
from core.scan.volume import Volume, compute_percentiles

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A brain MRI is grey. A picture counts as colour when more than this share of its pixels differ
# between their strongest and weakest channel by more than 24 of 255 levels. Measured: of 8,812
# scans, some with coloured marks, the most colourful has 8 %; 88 % of ordinary small photographs
# have more.
COLOUR_SHARE = 0.10
COLOUR_LEVELS = 24
DISPLAY_RANGE = (0.0, 255.0)  # black and white of 8-bit levels
MIN_FILL = 0.9  # share of a range that the largest value must reach


def read_picture(source: bytes | Image.Image, any_picture: bool) -> Volume:
    """Read a picture file's bytes, or an open PIL picture, as a volume of one slice.

    Raises:
        ScanError: not a picture, animated, too large or too small.
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    try:
        picture = _rotate_upright(_decode(source))
    except Image.DecompressionBombError:
        million = MAX_PIXELS // 1_000_000
        raise ScanError(f"The picture has more than {million} million pixels.") from None
    values, levels = to_grey(picture, any_picture)
    return Volume(values[None], levels, "picture")


def to_grey(picture: Image.Image, any_picture: bool) -> tuple[np.ndarray, tuple[float, float]]:
    """Return grey values (H, W) float32 and their black and white; transparent parts are black.

    Raises:
        ScanError: values that are not numbers.
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.float32)
        return deep, _find_range(deep)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"), dtype=np.float32), DISPLAY_RANGE
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    rgb = picture.convert("RGB")
    if not any_picture and _measure_colour_share(rgb) > COLOUR_SHARE:
        raise NotAnMRIError(
            "This does not look like a brain MRI: it is a colour picture, and MRI is grey."
        )
    return np.asarray(rgb.convert("L"), dtype=np.float32), DISPLAY_RANGE


def _decode(source: bytes | Image.Image) -> Image.Image:
    picture = source if isinstance(source, Image.Image) else _open(source)
    if getattr(picture, "is_animated", False):
        raise ScanError(
            "The file contains several pictures or an animation: save a single picture as a file."
        )
    check_pixels(picture.height, picture.width)
    picture.load()
    return picture


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ScanError(
            "The file is not a picture or a volume that can be read here. Supported are PNG, JPEG, "
            "BMP, TIFF, WebP, DICOM, NIfTI and a zip of DICOM slices."
        ) from None


def _rotate_upright(picture: Image.Image) -> Image.Image:
    """Rotate a picture by its EXIF orientation, where that can be read."""
    with contextlib.suppress(Exception):  # broken metadata: the pixels are still good
        return ImageOps.exif_transpose(picture)
    return picture


def _measure_colour_share(rgb: Image.Image) -> float:
    small = rgb.copy()
    small.thumbnail((256, 256))
    channels = np.asarray(small, dtype=np.int16)
    return float((channels.max(-1) - channels.min(-1) > COLOUR_LEVELS).mean())


def _find_range(values: np.ndarray) -> tuple[float, float]:
    """Find black and white of pictures deeper than 8 bits, which have no standard white.

    White is 1, 255, 4095 (12-bit scanners) or 65535 where the values fill that range, else both
    are percentiles of the values.
    """
    if not np.isfinite(values).all():
        raise not_numbers_error()
    low, high = float(values.min()), float(values.max())
    for top in (1.0, 255.0, 4095.0, 65535.0):
        if low >= 0 and MIN_FILL * top <= high <= top:
            return 0.0, top
    return compute_percentiles(values)
