"""Palettes of DICOM: tables of colours, whole or in segments (PS3.3 C.7.9.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.scan.errors import ScanError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DISCRETE, LINEAR, INDIRECT = 0, 1, 2  # kinds of segments


def read_palette(ds: Dataset) -> tuple[np.ndarray, int]:
    """Read a file's colours (entries, 3) uint8, and the stored number of the first.

    Raises:
        ScanError: a segment repeats others (indirect), which is not supported.
        Exception: of any kind, where the palette is damaged.
    """
    entries, first, depth = ds.RedPaletteColorLookupTableDescriptor
    entries = entries or 65536
    table = np.stack([_read_table(ds, one, entries, depth) for one in ("Red", "Green", "Blue")], -1)
    brightest = int(table.max())
    if brightest > 255:  # else 8 bits are held, whatever is declared
        table >>= max(depth, brightest.bit_length()) - 8
    return table.astype(np.uint8), first


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
    """Join segments to a table: levels one by one, or the last of a ramp."""
    places: list[int] = []
    levels: list[int] = []
    end = position = 0
    while end < entries:
        kind, length = words[position : position + 2]
        if kind == INDIRECT:
            raise ScanError("This kind of palette cannot be read here: export the picture in grey.")
        found = words[position + 2 : position + 2 + (length if kind == DISCRETE else 1)]
        if kind not in (DISCRETE, LINEAR) or not (length and found) or kind > len(levels):
            raise ValueError("no segment of a palette")
        places += range(end, end + len(found)) if kind == DISCRETE else [end + length - 1]
        levels += found
        end += length
        position += 2 + len(found)
    return np.interp(np.arange(entries), places, levels).round().astype(np.uint16)
