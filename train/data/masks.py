"""Tumour masks of Br35H, drawn from its outlines (VIA polygons, circles, ellipses)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from core.scan import SIZE
from train.data.dataset import ScanDataset

ANNOTATIONS = Path("br35h") / "annotations_all.json"
FOLDER = "br35h/yes"
MIN_PIXELS = 30  # smaller masks are left out


def read_outlines(data: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Returns shapes by file, relative to the data folder; none without annotations."""
    path = Path(data) / ANNOTATIONS
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text(encoding="utf-8")).values()
    return {
        f"{FOLDER}/{e['filename']}": [r["shape_attributes"] for r in e["regions"]]
        for e in entries
        if e["regions"]
    }


def draw_mask(shapes: list[dict[str, Any]], width: int, height: int, size: int = SIZE) -> Tensor:
    """Returns the shapes' pixels, bool (size, size), padded and resized as by `read_scan`."""
    picture = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        draw.polygon(_points(shape), fill=255)
    side = max(width, height)
    square = Image.new("L", (side, side), 0)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    small = square.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(small) >= 128)


def load_masks(fold: ScanDataset, data: str | Path) -> dict[int, Tensor]:
    """Returns lesion masks by row of the fold, where an outline exists and is large enough."""
    outlines = read_outlines(data)
    masks = {}
    for row, entry in enumerate(fold.entries):
        if entry.file in outlines:
            with Image.open(Path(data) / entry.file) as picture:
                width, height = ImageOps.exif_transpose(picture).size
            mask = draw_mask(outlines[entry.file], width, height)
            if int(mask.sum()) >= MIN_PIXELS:
                masks[row] = mask
    return masks


def _points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    if shape["name"] == "polygon":
        return list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    if shape["name"] not in ("circle", "ellipse"):
        raise ValueError(f"unknown shape {shape['name']!r}: expected polygon, circle or ellipse")
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
