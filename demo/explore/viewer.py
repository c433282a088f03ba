"""Linked viewer: raw pixels inside one value, never a file, drawn by the scripts in this folder.

A layer is `{"type", "shape", "scale", "data"}`: little-endian numbers, base64; value = number times
scale. Grey values are compared by g = (value - black) / (white - black): 0 is black for the models,
1 is white. A display window is a range of g: one window serves the file's 16 bits and the models'
8 bits, and never affects the models.
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
from demo.rendering.error_map import describe_error_map
from demo.rendering.flag_reasons import (
    MAX_EVIDENCE,
    describe_evidence_map,
    encode_evidence_layer,
)
from demo.rendering.tumour_map import THRESHOLDS
from demo.rendering.verdicts import name_outputs

View = dict[str, Any]
HERE = Path(__file__).parent
SCRIPTS = ("layers.js", "viewer.js", "interaction.js")  # in one scope
ERROR_STEP = 1 / 64  # unit of the errors sent, in grey levels; up to 1023 levels
MAX_SIDE = 1024  # pixels; larger slices are reduced, and the page says so
WINDOW_NAMES = {"auto": "auto: as the models see it", "full": "full range"}


def build_viewer() -> gr.HTML:
    """Build the viewer, empty."""
    steps = np.linspace(0, 1, 256)
    return gr.HTML(
        {},
        html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
        error_top=images.MAX_ERROR * 255,
        evidence_top=MAX_EVIDENCE,
        thresholds=THRESHOLDS,
        error_table=_encode(images.apply_cividis(steps)),
        change_table=_encode(images.apply_diverging(np.linspace(-1, 1, 257))),
    )


def build_view(series: Series | None, scan: Tensor | None = None) -> View:
    """Build the viewer's value: the file's pixels, and the scan (1, 224, 224) of the models.

    Args:
        series: with the slice to show; None empties the viewer.
        scan: None if the slice is blank.
    """
    if series is None:
        return {}
    volume = series.volume
    own, reduced = _reduce(volume.data[series.index])
    black, white = volume.levels
    levels = None if scan is None else to_uint8(scan)[0]
    is_same = levels is not None and own.shape == levels.shape and bool((own == levels).all())
    file = {**encode_layer(own), **_place_file(own, volume), "reduced": reduced}
    return {
        "key": series.key,
        "slices": len(volume),
        "black": black,
        "white": white if white != black else black + math.ulp(1.0),
        "windows": _list_windows(volume),
        "marks": volume.marks,
        "file": None if is_same else file,
        "scan": None if levels is None else encode_layer(levels),
    }


def build_layers(analysis: Analysis) -> View:
    """Build the layers of an analysis but its tumour maps, to be added to the view of its scan."""
    captions: dict[str, tuple[str, str]] = {"error": ("", describe_error_map())}  # tone, words
    blanks: dict[str, str] = {}  # words in place of a picture
    found: View = {"captions": captions, "blanks": blanks}
    if analysis.settings.kind == "none":
        blanks |= dict.fromkeys(("attacked", "change"), "No attack was made.")
    if analysis.attacked_scan is not None:
        found["attacked"] = encode_layer(to_uint8(analysis.attacked_scan)[0])
        captions["change"] = "", f"at most {analysis.change[1]} of 255 levels"
    truth = analysis.settings.truth
    right = ("", "") if truth == "unknown" else (truth, truth)  # unknown: as on the clean scan
    for (name, d), picture in zip(analysis.readings, ("original", "attacked"), strict=False):
        found[f"{name}_error"] = encode_error_layer(d)
        found[f"{name}_evidence"] = encode_evidence_layer(d)
        if found[f"{name}_evidence"] is None:
            blanks[f"{name}_evidence"] = describe_evidence_map(d)
        found[f"{name}_purified"] = encode_layer(to_uint8(d.purified)[0])
        captions[f"{name}_evidence"] = "", describe_evidence_map(d)
        captions |= _caption_outputs(d, right, picture, f"{name}_purified")
        right = name_outputs(d) if truth == "unknown" and name == "clean" else right
    return found


def _caption_outputs(
    d: Diagnosis, right: tuple[str, str], picture: str, purified: str
) -> dict[str, tuple[str, str]]:
    """Return the captions, tone and words, of a scan and of its purified picture.

    Each output stands under the picture that it is of; `right` are the outputs that would be right.
    Of two that differ none lends its tone.
    """

    def judge(says: str, wanted: str) -> str:
        judged = wanted and says != wording.NO_JUDGEMENT
        return "" if not judged else "good" if says == wanted else "bad"

    without, defended = name_outputs(d)
    if d.policy != "picture":
        return {
            picture: (judge(without, right[0]), f"without defence: {without}"),
            purified: (judge(defended, right[1]), f"with defence: {defended}"),
        }
    both = f"without defence: {without}; with defence: {defended}"
    tones = {judge(without, right[0]), judge(defended, right[1])}
    return {
        picture: (tones.pop() if len(tones) == 1 else "", both),
        purified: ("", f"{wording.describe_depth(d.t_star)}, to be looked at"),
    }


def encode_layer(values: np.ndarray) -> View:
    """Encode values (H, W) in the smallest type that holds them exactly, else in float32."""
    low, high = float(values.min()), float(values.max())
    kind = "<f4"
    if (values == np.rint(values)).all():
        ranges = {"<u1": (0, 255), "<i2": (-(2**15), 2**15 - 1), "<u2": (0, 2**16 - 1)}
        kind = next((k for k, (a, b) in ranges.items() if a <= low and high <= b), kind)
    return {
        "type": kind[1:],
        "shape": list(values.shape),
        "scale": 1,
        "data": _encode(values.astype(kind)),
    }


def encode_error_layer(diagnosis: Diagnosis) -> View:
    """Encode the root of the squared error in grey levels, to the nearest `ERROR_STEP`."""
    root = diagnosis.error_map.detach().clamp_min(0).sqrt().numpy() * 255
    return {**encode_layer(np.rint(root / ERROR_STEP).clip(0, 2**16 - 1)), "scale": ERROR_STEP}


def _reduce(own: np.ndarray) -> tuple[np.ndarray, int]:
    """Reduce a slice to `MAX_SIDE` by means over squares; return it and their side in pixels."""
    times = math.ceil(max(own.shape) / MAX_SIDE)
    if times == 1:
        return own, 1
    small = np.asarray(Image.fromarray(np.ascontiguousarray(own)).reduce(times))
    return (np.rint(small) if (own == np.rint(own)).all() else small), times


def _place_file(own: np.ndarray, volume: Volume) -> View:
    """Return the file's rectangle in the models' square: left, top, width, height."""
    spacing = volume.spacing or (1.0, 1.0)
    height, width = (n * mm for n, mm in zip(own.shape, spacing, strict=True))
    side = max(height, width)
    return {"rect": [(1 - width / side) / 2, (1 - height / side) / 2, width / side, height / side]}


def _list_windows(volume: Volume) -> list[list[Any]]:
    """List name and range of g of each window; auto, that of the models, comes first."""
    black, white = volume.levels
    span = white - black or math.ulp(1.0)
    found = []
    for name, centre, width in volume.windows:
        ends = sorted((centre + side * width / 2 - black) / span for side in (-1, 1))
        found.append([WINDOW_NAMES.get(name, name.replace("file", "the file's own")), *ends])
    return sorted(found, key=lambda window: window[0] != WINDOW_NAMES["auto"])


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
