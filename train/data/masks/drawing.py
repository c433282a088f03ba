"""Tumour masks on the canonical grid, from outlines (VIA) and from one-bit pictures.

A mask is padded and resized exactly as `read_scan` does with its picture, whatever its own size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from core.scan.canonical import fit_square
from train.data.dataset import ScanDataset
from train.data.errors import DataError
from train.data.source_tables import COLLECTION, TCGA, read_table
from train.data.sources import BR35H

ANNOTATIONS = Path(BR35H) / "annotations_all.json"
ANNOTATED = f"{BR35H}/yes"
MIN_COVER = 0.5  # share of a pixel that the tumour covers
MIN_PIXELS = 30  # of 224 x 224; smaller masks are left out of measurements
ORIENTATION, ON_ITS_SIDE = 0x0112, 5  # of EXIF: from this value on height and width swap


@dataclass(frozen=True)
class Outline:
    """Tumour of one picture: a one-bit picture, or shapes in the picture's own pixels."""

    file: str = ""  # relative to the data folder, as in the tables
    is_mirrored: bool = False  # the scan is a mirror image, left to right
    shapes: tuple[dict[str, Any], ...] = ()


def find_outlines(data: str | Path, sources: Iterable[str]) -> dict[str, Outline]:
    """Find the outlined tumours of the sources, by the picture's file.

    A source whose table or annotations are not in the data folder has none.

    Raises:
        DataError: a table or the annotations are damaged, or a mask's picture is missing.
    """
    data = Path(data)
    found: dict[str, Outline] = {}
    if BR35H in sources and (data / ANNOTATIONS).is_file():
        found |= _read_annotations(data / ANNOTATIONS)
    for source in (COLLECTION, TCGA):
        if source in sources and (data / f"{source}.csv").is_file():
            lines = read_table(data, source)
            found |= {e.file: Outline(e.mask, e.mirrored) for e in lines if e.mask}
    missing = [file for file in found if not (data / file).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} tumour masks under {data} have no picture: the first is the mask of "
            f"{missing[0]}, which is missing"
        )
    return found


def draw_mask(outline: Outline, data: str | Path, picture: str) -> np.ndarray:
    """Draw the tumour of a picture's scan, bool (224, 224).

    Raises:
        DataError: the mask is missing, unreadable or of another shape than the picture, or the
            outline has an unknown shape.
    """
    width, height = _measure(Path(data) / picture)
    if outline.shapes:
        area = draw_shapes(outline.shapes, width, height, picture)
    else:
        area = _read_mask(Path(data) / outline.file)
        if abs(area.shape[1] * height - area.shape[0] * width) > max(width, height):
            raise DataError(
                f"the tumour mask {outline.file} has {area.shape[1]} x {area.shape[0]} pixels, "
                f"which is not the shape of {picture} ({width} x {height})"
            )
        area = np.ascontiguousarray(area[:, ::-1]) if outline.is_mirrored else area
    mask: np.ndarray = fit_square(area) >= MIN_COVER
    return mask


def draw_shapes(
    shapes: Iterable[dict[str, Any]], width: int, height: int, picture: str
) -> np.ndarray:
    """Fill VIA's polygons, circles and ellipses with 1: float32 (height, width).

    Raises:
        DataError: a shape is unknown or incomplete; the message names the picture.
    """
    area = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(area)
    for shape in shapes:
        try:
            pen.polygon(_list_points(shape), fill=1)
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"the outline of {picture} has an unknown shape {shape.get('name')!r} or one that "
                "is incomplete: expected polygon, circle or ellipse"
            ) from None
    return np.asarray(area, dtype=np.float32)


def load_masks(fold: ScanDataset, data: str | Path) -> dict[int, Tensor]:
    """Load tumour masks by row of the fold, bool (224, 224), where one is known and large enough.

    Raises:
        DataError: as `find_outlines` and `draw_mask`.
    """
    outlines = find_outlines(data, {entry.source for entry in fold.entries})
    masks = {}
    for row, entry in enumerate(fold.entries):
        if entry.file in outlines:
            mask = draw_mask(outlines[entry.file], data, entry.file)
            if mask.sum() >= MIN_PIXELS:
                masks[row] = torch.from_numpy(mask)
    return masks


def _read_annotations(path: Path) -> dict[str, Outline]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).values()
        shapes = {
            f"{ANNOTATED}/{e['filename']}": tuple(r["shape_attributes"] for r in e["regions"])
            for e in entries
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        raise DataError(f"{path} does not hold outlines in the format of VIA") from None
    return {file: Outline(shapes=found) for file, found in shapes.items() if found}


def _read_mask(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"the tumour mask {path}, which a table names, is missing")
    try:
        with Image.open(path) as picture:
            return (np.asarray(picture.convert("L")) > 0).astype(np.float32)
    except (OSError, Image.DecompressionBombError):
        raise DataError(f"the tumour mask {path} is no picture that can be read") from None


def _measure(path: Path) -> tuple[int, int]:
    """Return width and height of a picture, upright."""
    with Image.open(path) as picture:
        width, height = picture.size
        is_turned = picture.getexif().get(ORIENTATION, 1) >= ON_ITS_SIDE
    return (height, width) if is_turned else (width, height)


def _list_points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    if shape["name"] == "polygon":
        return list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    if shape["name"] not in ("circle", "ellipse"):
        raise ValueError("unknown shape")
    a, b = (shape["r"],) * 2 if shape["name"] == "circle" else (shape["rx"], shape["ry"])
    theta = shape.get("theta", 0.0)  # radians, as VIA writes it
    points = []
    for i in range(64):
        u, v = a * math.cos(math.tau * i / 64), b * math.sin(math.tau * i / 64)
        points.append(
            (
                shape["cx"] + u * math.cos(theta) - v * math.sin(theta),
                shape["cy"] + u * math.sin(theta) + v * math.cos(theta),
            )
        )
    return points
