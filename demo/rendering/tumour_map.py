"""Tumour map in words and as a layer of the viewer."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from demo.analysis.regions import THRESHOLD, Regions, find_regions, list_regions
from demo.rendering import wording

STEPS = 200  # of a probability in the viewer; a multiple of the thresholds' steps
THRESHOLDS = tuple(n / 20 for n in range(1, 20))  # that the viewer offers
OUTSIDE = "outside the head"  # where all marked cells are, if they cover nothing of it
MIDDLE = 0.08  # distance from the picture's middle up to which a place is in the middle


def describe_where(d: Diagnosis) -> str:
    """Describe where a reading sees a tumour; empty where it cannot judge or makes no map."""
    where: str = summarize_map(d)["where"]
    return where


def summarize_map(d: Diagnosis) -> dict[str, Any]:
    """Return, for JSON, where a reading sees a tumour, and the number and area of its regions."""
    found = find_regions(d) if d.can_judge else None
    if found is None:
        return {"where": "", "tumour_regions": None, "tumour_area": None}
    return {
        "where": describe_regions(found, THRESHOLD),
        "tumour_regions": found.count,
        "tumour_area": found.head_share,
    }


def list_cells(cells: Tensor | None) -> list[list[float]]:
    """Return a map's cells (h, w) as rows of probabilities to three decimals; empty without one."""
    if cells is None:
        return []
    rows: list[list[float]] = cells.double().tolist()
    return [[round(p, 3) for p in row] for row in rows]


def describe_regions(found: Regions, threshold: float) -> str:
    """Describe number, place and size of the regions, and the map's peak, in a sentence."""
    level, peak = f"{threshold * 100:.0f} %", wording.format_percent(found.peak)
    highest = f"the highest is {peak.replace('>', 'above').replace('<', 'below')}"
    if not found.count:
        return f"Nowhere above {level}; {highest}."
    place, size = f"{name_place(*found.place)} of the picture", OUTSIDE
    if found.head_share:
        size = f"{wording.format_percent(found.head_share)} of the head"
    if found.count == 1:
        return f"One region above {level}: {place}, {size}; {highest}."
    together = f"{'together' if found.head_share else 'all'} {size}"
    return f"{found.count} regions above {level}: the largest {place}, {together}; {highest}."


def name_place(across: float, down: float) -> str:
    """Name a place of the picture, in [0, 1] from its upper left corner."""
    column = "" if abs(across - 0.5) <= MIDDLE else "left" if across < 0.5 else "right"
    row = "" if abs(down - 0.5) <= MIDDLE else "upper" if down < 0.5 else "lower"
    return f"{row} {column or 'middle'}" if row else column or "middle"


def build_map_layers(name: str, d: Diagnosis) -> dict[str, Any]:
    """Build a reading's maps for the viewer, of the mixture and of each expert, and their words.

    The words are by map and threshold; where the reading cannot judge they are one sentence.
    """
    if d.tumour_map is None or d.expert_maps is None:
        return {}
    if not d.can_judge:
        return {f"{name}_where": wording.describe_refusal(name)[1]}
    maps = torch.cat([d.tumour_map[None], d.expert_maps])
    layers = {f"{name}_map{k}": _encode_layer(cells) for k, cells in enumerate(maps)}
    words = [
        [describe_regions(found, t) for t, found in zip(THRESHOLDS, row, strict=True)]
        for row in list_regions(maps, THRESHOLDS, d.scan)
    ]
    return {**layers, f"{name}_where": words}


def _encode_layer(cells: Tensor) -> dict[str, Any]:
    """Encode probabilities (h, w), rounded down so that no cell passes a threshold by rounding."""
    steps = np.floor(cells.float().numpy() * np.float32(STEPS)).astype(np.uint8)
    data = base64.b64encode(steps.tobytes()).decode("ascii")
    return {"type": "u1", "shape": list(steps.shape), "scale": 1 / STEPS, "data": data}
