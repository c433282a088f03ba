"""Pictures of the page as PNG data URLs, pixel for pixel, on fixed colour scales."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from core.scan import to_png, to_uint8

# Fixed scales, so that two runs can be compared by eye.
MAX_ERROR = 0.25  # root of the squared error, in parts of full brightness
MAX_CHANGE_LEVELS = 16  # grey levels of 255
MAX_OVERLAY_OPACITY = 0.8  # of the highest value
MAP_OPACITY = 0.4  # of a tumour map
OUTLINE = (45, 212, 191)  # the page's accent in the dark


def encode_scan(scan: Tensor) -> str:
    """Encode a scan (1, H, W) in [0, 1] as the data URL of a lossless grey PNG."""
    return _encode_png(to_png(scan))


def encode_error(error_map: Tensor) -> str:
    """Encode a squared-error map (H, W), coloured by `colour_error`, as a data URL."""
    return _encode_colours(colour_error(error_map))


def encode_change(scan: Tensor, attacked: Tensor, top: int = MAX_CHANGE_LEVELS) -> str:
    """Encode attacked - scan, each (1, H, W), coloured by `colour_change`, as a data URL."""
    return _encode_colours(colour_change(scan, attacked, top))


def encode_overlay(scan: Tensor, share: Tensor) -> str:
    """Encode a map (H, W) in [0, 1] over its scan (1, H, W); high values are dense."""
    grey = to_uint8(scan)[0][..., None].astype(np.float64)
    value = share.detach().clamp(0, 1).cpu().numpy()
    dense = MAX_OVERLAY_OPACITY * np.sqrt(value)[..., None]
    rgb = grey * (1 - dense) + apply_cividis(value) * dense
    return _encode_colours(rgb.round().astype(np.uint8))


def encode_tumour_map(scan: Tensor, cells: Tensor, threshold: float) -> str:
    """Encode a scan under its tumour map, coloured by `colour_tumour_map`, as a data URL."""
    return _encode_colours(colour_tumour_map(scan, cells, threshold))


def colour_tumour_map(scan: Tensor, cells: Tensor, threshold: float) -> np.ndarray:
    """Return RGB uint8 (H, W, 3) of a scan (1, H, W) under its tumour map (h, w).

    Cells from the threshold on are tinted by their probability and outlined inside their edge.
    """
    grey = to_uint8(scan)[0][..., None].astype(np.float64)
    value = np.kron(cells.cpu().numpy(), np.ones([scan.shape[-1] // cells.shape[-1]] * 2))
    inside = value >= np.float32(threshold)
    tint = MAP_OPACITY * inside[..., None]
    rgb = grey * (1 - tint) + apply_cividis(value.clip(0, 1)) * tint
    padded = np.pad(inside, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    rgb[inside & ~around] = OUTLINE
    return rgb.round().astype(np.uint8)


def colour_error(error_map: Tensor) -> np.ndarray:
    """Return RGB uint8 (H, W, 3) of a squared error: dark blue 0, yellow `MAX_ERROR` and more."""
    share = error_map.detach().clamp_min(0).sqrt() / MAX_ERROR
    return apply_cividis(share.clamp(0, 1).cpu().numpy())


def colour_change(scan: Tensor, attacked: Tensor, top: int = MAX_CHANGE_LEVELS) -> np.ndarray:
    """Return RGB uint8 (H, W, 3) of attacked - scan: orange brighter, blue darker, black equal.

    Colours are brightest from `top` grey levels on.
    """
    levels = to_uint8(attacked).astype(np.int16)[0] - to_uint8(scan).astype(np.int16)[0]
    return apply_diverging((levels / top).clip(-1, 1))


def apply_cividis(share: np.ndarray) -> np.ndarray:
    """Return RGB uint8 (..., 3) for values in [0, 1]; brightness rises with the value.

    Colour map of Nunez, Anderton and Renslow (2018), fit for colour-blind readers; the polynomial
    is d3-scale-chromatic's.
    """
    red = np.polyval([2710.57, -7024.72, 6402.70, -2381.73, 35.34, 4.54], share) * -1
    green = np.polyval([-67.37, 176.58, -131.46, 52.82, 170.73, 32.49], share)
    blue = np.polyval([2475.67, -6614.94, 6167.24, -2482.43, 442.36, 81.24], share)
    return np.stack([red, green, blue], -1).clip(0, 255).round().astype(np.uint8)


def apply_diverging(share: np.ndarray) -> np.ndarray:
    """Return RGB uint8 (..., 3) for values in [-1, 1]: blue below 0, black at 0, orange above."""
    size = np.abs(share)[..., None] ** 0.6  # small changes stay visible
    colour = np.where(share[..., None] > 0, np.array([255, 166, 77]), np.array([86, 180, 255]))
    return (colour * size).round().astype(np.uint8)


def _encode_colours(rgb: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)  # three times as fast
    return _encode_png(buffer.getvalue())


def _encode_png(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
