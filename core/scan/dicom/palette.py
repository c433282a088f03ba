"""Palettes of DICOM: tables of colours, whole or in segments (PS3.3 C.7.9.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DISCRETE, LINEAR = 0, 1  # kinds of segments


def apply_palette(stored: np.ndarray, ds: Dataset) -> np.ndarray:
    """Convert numbers of a palette (H, W) to RGB (H, W, 3) uint8.

    Raises:
        Exception: of any kind, where the palette is damaged.
    """
    entries, first, depth = ds.RedPaletteColorLookupTableDescriptor
    entries = entries or 65536
    table = np.stack([_read_table(ds, one, entries, depth) for one in ("Red", "Green", "Blue")], -1)
    brightest = int(table.max())
    if brightest > 255:  # else 8 bits are held, whatever is declared
        table >>= max(depth, brightest.bit_length()) - 8
    chosen = np.clip(stored.astype(np.int64) - first, 0, entries - 1)
    colours: np.ndarray = table.astype(np.uint8)[chosen]
    return colours


def _read_table(ds: Dataset, colour: str, entries: int, depth: int) -> np.ndarray:
    """Read a colour's levels, (entries,) uint16."""
    order = "<" if ds.original_encoding[1] else ">"
    data = ds.get(f"{colour}PaletteColorLookupTableData")
    if data is None:
        segments = ds[f"Segmented{colour}PaletteColorLookupTableData"].value
        words = np.frombuffer(segments, f"{order}u{1 if depth <= 8 else 2}")
        return _join_segments(words.tolist(), entries)
    width = 1 if len(data) < 2 * entries else 2
    return np.frombuffer(data, f"{order}u{width}", entries).astype(np.uint16)


def _join_segments(words: list[int], entries: int) -> np.ndarray:
    """Join segments to a table; those that repeat others (indirect) are not supported."""
    levels: list[int] = []
    position = 0
    while len(levels) < entries:
        kind, length, *values = words[position : position + 2 + entries]
        if kind == DISCRETE:
            levels += values[:length]
        elif kind == LINEAR:
            ramp = np.linspace(levels[-1], values[0], length + 1)[1:]
            levels += ramp.round().astype(int).tolist()
        if kind not in (DISCRETE, LINEAR) or not length:
            raise ValueError("no segment of a palette")
        position += 2 + (length if kind == DISCRETE else 1)
    return np.array(levels[:entries], dtype=np.uint16)
