"""PNG, JPEG, BMP, TIFF and WebP to grey levels."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.scan.errors import MAX_PIXELS, NotAnMRIError, ScanError, check_pixels, not_numbers_error
from core.scan.levels import describe_darkness, find_levels
from core.scan.volume import Volume

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# A brain MRI is grey. A picture counts as colour when more than this share of its pixels differ
# between their strongest and weakest channel by more than 24 of 255 levels. Measured: of 8,812
# scans, some with coloured marks, the most colourful has 8 %; 88 % of ordinary small photographs
# have more.
COLOUR_SHARE = 0.10
COLOUR_LEVELS = 24
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # tags of TIFF and their values
SAMPLE_FORMAT, UNSIGNED = 339, (1,)
DISPLAY_RANGE = (0.0, 255.0)  # black and white of 8-bit levels
# Pictures deeper than 8 bits have no standard white: one of these where the values fill its range
WHITES = (1.0, 255.0, 4095.0, 65535.0)  # 4095: 12-bit scanners


def read_picture(source: bytes | Image.Image, any_picture: bool) -> Volume:
    """Read a picture file's bytes, or an open PIL picture, as a volume of one slice.

    Raises:
        ScanError: not a picture, animated, too large or too small.
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    try:
        opened = _decode(source)
    except Image.DecompressionBombError:
        million = MAX_PIXELS // 1_000_000
        raise ScanError(f"The picture has more than {million} million pixels.") from None
    picture = _rotate_upright(opened)
    if not picture.mode.startswith(("I", "F")):
        values = to_grey(picture, any_picture)[None]
        dark = tuple(describe_darkness(values, DISPLAY_RANGE))
        return Volume(values, DISPLAY_RANGE, "picture", notes=dark)
    tags = getattr(opened, "tag_v2", {})  # of a TIFF
    is_inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    is_unsigned = bool(tags) and tags.get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED
    values = _read_deep(picture, is_unsigned)[None]
    levels, notes = find_levels(values, is_inverted=is_inverted, whites=WHITES)
    return Volume(values, levels[::-1] if is_inverted else levels, "picture", notes=tuple(notes))


def to_grey(picture: Image.Image, any_picture: bool) -> np.ndarray:
    """Return grey values 0 to 255 (H, W) float32; transparent parts are black.

    Raises:
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"), dtype=np.float32)
    rgb = picture.convert("RGB")
    if not any_picture and _measure_colour_share(rgb) > COLOUR_SHARE:
        raise NotAnMRIError(
            "This does not look like a brain MRI: it is a colour picture, and MRI is grey."
        )
    return np.asarray(rgb.convert("L"), dtype=np.float32)


def _read_deep(picture: Image.Image, is_unsigned: bool) -> np.ndarray:
    """Return the values (H, W) float32 of a picture with more than 8 bits."""
    values = np.asarray(picture)
    if values.dtype == np.int32 and is_unsigned:
        values = values.view(np.uint32)  # Pillow has signed numbers alone
    deep = values.astype(np.float32)
    if (clear := picture.info.get("transparency")) is not None:
        deep[values == clear] = 0
    if np.isinf(deep).any():
        raise not_numbers_error()
    return deep


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
