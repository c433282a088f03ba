"""The linked viewer: raw pixels inside one value, never a file; the scripts beside it draw them.

A layer is `{"type", "shape", "scale", "data"}`: little-endian numbers, base64; value = number times
scale. Greys are linked by g = (value - black) / (white - black): 0 is what the models see as black,
1 as white. A display window is a range of g, so that one window serves the file's own 16 bits and
the 8 bits that the models read, and never reaches the models.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from torch import Tensor

from core.diagnosis import Diagnosis
from core.scan import Volume, to_uint8
from demo.analysis.analysis import Analysis
from demo.explore.series import Series
from demo.rendering import images, wording

View = dict[str, Any]
HERE = Path(__file__).parent
SCRIPTS = (
    "layers.js",
    "viewer.js",
    "interaction.js",
)  # they share one scope
ERROR_STEP = 1 / 64  # grey levels; errors are sent as whole numbers of it, up to 1023 levels
MAX_SIDE = 1024  # of the file's own pixels; a larger slice is shown, and said to be, reduced
WINDOW_NAMES = {"auto": "auto: as the models see it", "full": "full range"}


def component() -> gr.HTML:
    """The viewer, empty."""
    steps = np.linspace(0, 1, 256)
    return gr.HTML(
        {},
        html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
        error_top=images.ERROR_TOP * 255,
        error_table=_base64(images.cividis(steps)),
        change_table=_base64(images.diverging(np.linspace(-1, 1, 257))),
    )


def view(series: Series | None, scan: Tensor | None = None) -> View:
    """The chosen slice: the file's own pixels, and the scan (1, 224, 224) that the models read.

    Args:
        series: what is looked at; None empties the viewer.
        scan: None where the slice is blank, so that the models read nothing.
    """
    if series is None:
        return {}
    volume = series.volume
    own, reduced = _reduced(volume.data[series.index])
    black, white = volume.levels
    levels = None if scan is None else to_uint8(scan)[0]
    is_same = levels is not None and own.shape == levels.shape and bool((own == levels).all())
    return {
        "key": series.key,
        "black": black,
        "white": white if white != black else black + math.ulp(1.0),
        "windows": _windows(volume),
        "marks": volume.marks,
        "file": None if is_same else {**layer(own), **_place(own, volume), "reduced": reduced},
        "scan": None if levels is None else layer(levels),
    }


def results(analysis: Analysis) -> View:
    """An analysis so far as layers, to be added to the view of its scan."""
    found: View = {
        "waiting": "no attack" if analysis.settings.kind == "none" else "waiting",
        "captions": {"error": wording.ERROR_CAPTION},
    }
    if analysis.attacked_scan is not None:
        found["attacked"] = layer(to_uint8(analysis.attacked_scan)[0])
    for name, diagnosis in analysis.readings:
        found[f"{name}_error"] = error_layer(diagnosis)
        found[f"{name}_purified"] = layer(to_uint8(diagnosis.purified)[0])
        found["captions"][f"{name}_purified"] = f"{name} scan, t* = {diagnosis.t_star}"
    return found


def layer(values: np.ndarray) -> View:
    """Values (H, W), sent as the smallest numbers that hold them exactly, else as float32."""
    low, high = float(values.min()), float(values.max())
    kind = "<f4"
    if (values == np.rint(values)).all():
        ranges = {"<u1": (0, 255), "<i2": (-(2**15), 2**15 - 1), "<u2": (0, 2**16 - 1)}
        kind = next((k for k, (a, b) in ranges.items() if a <= low and high <= b), kind)
    return {
        "type": kind[1:],
        "shape": list(values.shape),
        "scale": 1,
        "data": _base64(values.astype(kind)),
    }


def error_layer(diagnosis: Diagnosis) -> View:
    """The root of the squared error in grey levels of 255, to the nearest `ERROR_STEP`."""
    root = diagnosis.error_map.detach().clamp_min(0).sqrt().numpy() * 255
    return {**layer(np.rint(root / ERROR_STEP).clip(0, 2**16 - 1)), "scale": ERROR_STEP}


def _reduced(own: np.ndarray) -> tuple[np.ndarray, int]:
    """A slice at most `MAX_SIDE` wide and high, as means of squares, and their side in pixels."""
    times = math.ceil(max(own.shape) / MAX_SIDE)
    if times == 1:
        return own, 1
    small = np.asarray(Image.fromarray(np.ascontiguousarray(own)).reduce(times))
    return (np.rint(small) if (own == np.rint(own)).all() else small), times


def _place(own: np.ndarray, volume: Volume) -> View:
    """The file's rectangle in the square that the models read: left, top, width, height."""
    spacing = volume.spacing or (1.0, 1.0)
    height, width = (n * mm for n, mm in zip(own.shape, spacing, strict=True))
    side = max(height, width)
    return {"rect": [(1 - width / side) / 2, (1 - height / side) / 2, width / side, height / side]}


def _windows(volume: Volume) -> list[list[Any]]:
    """Name and range of g of each window; auto, which is what the models see, comes first."""
    black, white = volume.levels
    span = white - black or math.ulp(1.0)
    found = []
    for name, centre, width in volume.windows:
        ends = sorted((centre + side * width / 2 - black) / span for side in (-1, 1))
        found.append([WINDOW_NAMES.get(name, name.replace("file", "the file's own")), *ends])
    return sorted(found, key=lambda window: window[0] != WINDOW_NAMES["auto"])


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
