"""Br35H's tumour outlines (VIA: polygon, circle, ellipse) on the canonical grid; contrast."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from bench.data import Fold
from core.scan import SIZE

ANNOTATIONS = Path("br35h") / "annotations_all.json"
FOLDER = "br35h/yes"
MIN_PIXELS = 30  # a lesion smaller than this says nothing about contrast
RING = 8  # pixels around the lesion that it is compared with


def read_outlines(data: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Shapes by file, relative to the data folder; empty where there are no annotations."""
    path = Path(data) / ANNOTATIONS
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text(encoding="utf-8")).values()
    return {
        f"{FOLDER}/{e['filename']}": [r["shape_attributes"] for r in e["regions"]]
        for e in entries
        if e["regions"]
    }


def mask_of(shapes: list[dict[str, Any]], width: int, height: int, size: int = SIZE) -> Tensor:
    """Bool (size, size): the shapes' pixels after the padding and resizing of `read_scan`."""
    picture = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        draw.polygon(_points(shape), fill=255)
    side = max(width, height)
    square = Image.new("L", (side, side), 0)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    small = square.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(small) >= 128)


def masks_for(fold: Fold, data: str | Path) -> dict[int, Tensor]:
    """Lesion masks by row of the fold, where an outline exists and is large enough."""
    outlines = read_outlines(data)
    masks = {}
    for row, entry in enumerate(fold.entries):
        if entry.file in outlines:
            with Image.open(Path(data) / entry.file) as picture:
                width, height = ImageOps.exif_transpose(picture).size
            mask = mask_of(outlines[entry.file], width, height)
            if int(mask.sum()) >= MIN_PIXELS:
                masks[row] = mask
    return masks


def widened(mask: Tensor, by: int) -> Tensor:
    """The mask (H, W) bool with so many pixels around it."""
    return F.max_pool2d(mask[None].float(), 2 * by + 1, stride=1, padding=by)[0] > 0


def contrast(x: Tensor, mask: Tensor) -> float:
    """Mean of the lesion minus the mean of the ring around it; x (1, H, W)."""
    ring = widened(mask, RING) & ~mask
    if not ring.any():
        raise ValueError("the lesion fills the scan: nothing to compare it with")
    return float(x[0][mask].mean() - x[0][ring].mean())


def _points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    if shape["name"] == "polygon":
        return list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    if shape["name"] not in ("circle", "ellipse"):
        raise ValueError(f"unknown shape {shape['name']!r}: expected polygon, circle or ellipse")
    a, b = shape.get("rx", shape.get("r")), shape.get("ry", shape.get("r"))
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
