"""The page's pictures as PNG data URLs, pixel for pixel, on fixed colour scales, never on disk."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from core.scan import to_png, to_uint8

# Fixed scales, so that two runs can be compared by eye.
ERROR_TOP = 0.25  # root of the squared error, in parts of full brightness
CHANGE_TOP = 16  # grey levels of 255
OVERLAY = 0.8  # how much of the scan the highest value of an overlay hides


def scan_url(scan: Tensor) -> str:
    """Data URL of a scan (1, H, W) in [0, 1]: a lossless grey PNG."""
    return _url(to_png(scan))


def error_url(error_map: Tensor) -> str:
    """Data URL of a squared-error map (H, W), in `error_colours`."""
    return _colour_url(error_colours(error_map))


def change_url(scan: Tensor, attacked: Tensor, top: int = CHANGE_TOP) -> str:
    """Data URL of attacked - scan, each (1, H, W), in `change_colours`."""
    return _colour_url(change_colours(scan, attacked, top))


def overlay_url(scan: Tensor, share: Tensor) -> str:
    """Data URL of a map (H, W) in [0, 1] laid over its scan (1, H, W): the higher, the denser."""
    grey = to_uint8(scan)[0][..., None].astype(np.float64)
    value = share.detach().clamp(0, 1).cpu().numpy()
    dense = OVERLAY * np.sqrt(value)[..., None]
    rgb = grey * (1 - dense) + cividis(value) * dense
    return _colour_url(rgb.round().astype(np.uint8))


def error_colours(error_map: Tensor) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a squared error: dark blue is 0, yellow is `ERROR_TOP` and above."""
    share = error_map.detach().clamp_min(0).sqrt() / ERROR_TOP
    return cividis(share.clamp(0, 1).cpu().numpy())


def change_colours(scan: Tensor, attacked: Tensor, top: int = CHANGE_TOP) -> np.ndarray:
    """RGB uint8 (H, W, 3) of attacked - scan: orange brighter, blue darker, black the same.

    Colours are brightest from `top` grey levels on.
    """
    levels = to_uint8(attacked).astype(np.int16)[0] - to_uint8(scan).astype(np.int16)[0]
    return diverging((levels / top).clip(-1, 1))


def cividis(share: np.ndarray) -> np.ndarray:
    """RGB uint8 (..., 3) for values in [0, 1]: brightness rises with the value.

    The colour map is of Nunez, Anderton and Renslow (2018), made for colour-blind eyes too; the
    polynomial is d3-scale-chromatic's fit of it.
    """
    red = np.polyval([2710.57, -7024.72, 6402.70, -2381.73, 35.34, 4.54], share) * -1
    green = np.polyval([-67.37, 176.58, -131.46, 52.82, 170.73, 32.49], share)
    blue = np.polyval([2475.67, -6614.94, 6167.24, -2482.43, 442.36, 81.24], share)
    return np.stack([red, green, blue], -1).clip(0, 255).round().astype(np.uint8)


def diverging(share: np.ndarray) -> np.ndarray:
    """RGB uint8 (..., 3) for values in [-1, 1]: blue below zero, black at zero, orange above."""
    size = np.abs(share)[..., None] ** 0.6  # small changes stay visible
    colour = np.where(share[..., None] > 0, np.array([255, 166, 77]), np.array([86, 180, 255]))
    return (colour * size).round().astype(np.uint8)


def gradient_css(colours: np.ndarray) -> str:
    """A CSS gradient through RGB colours (N, 3), left to right: a colour bar."""
    stops = ", ".join(f"rgb({r},{g},{b})" for r, g, b in colours.tolist())
    return f"linear-gradient(to right, {stops})"


def _colour_url(rgb: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    return _url(buffer.getvalue())


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
