"""Tumour masks of many scans as one cached array, for training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.scan import SIZE
from train.data.errors import DataError
from train.data.masks.drawing import Outline, draw_mask, find_outlines
from train.data.sources import Record, load_cached

SIDE = SIZE // 2  # of a mask: each cell is 2 x 2 pixels of the scan


@dataclass(frozen=True)
class MaskArray:
    """Masks of N scans; those of healthy scans are known to be empty."""

    masks: np.ndarray  # (N, 112, 112) uint8: 255 times the tumour's share of the cell
    is_outlined: np.ndarray  # (N,) bool: healthy, or a tumour with a mask that is not empty


def load_mask_array(
    records: Sequence[Record], root: str | Path, cache: str | Path | None = None
) -> MaskArray | None:
    """Load the masks of the records' scans, drawn once into `cache`; None where no tumour has one.

    The cache is keyed by pictures and masks with their sizes and times, and by the outlines.

    Raises:
        DataError: a mask or its picture is missing, damaged, or belongs to a healthy scan.
    """
    root = Path(root)
    outlines = find_outlines(root, {record.source for record in records})
    for record in records:
        if not record.label and record.file in outlines:
            raise DataError(f"{record.file} shows no tumour, but has a tumour mask: remove one")
    files = [record.file for record in records]
    if not any(file in outlines for file in files):
        return None
    if cache is None:
        masks = _draw_all(files, root, outlines)
    else:
        facts = [(file, *_find_facts(file, root, outlines)) for file in files]
        key = hashlib.sha256(repr((SIDE, facts)).encode()).hexdigest()[:16]
        path = Path(cache) / f"masks-{key}.npy"
        masks = load_cached(path, lambda: _draw_all(files, root, outlines))
    is_healthy = np.array([record.label == 0 for record in records])
    return MaskArray(masks, is_healthy | masks.any(axis=(1, 2)))


def _draw_all(files: Sequence[str], root: Path, outlines: Mapping[str, Outline]) -> np.ndarray:
    masks = np.zeros((len(files), SIDE, SIDE), dtype=np.uint8)
    for i, file in enumerate(files):
        if file in outlines:
            mask = draw_mask(outlines[file], root, file)
            shares = mask.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
            masks[i] = np.rint(255 * shares)
    return masks


def _find_facts(file: str, root: Path, outlines: Mapping[str, Outline]) -> tuple[object, ...]:
    """Return all that a mask follows from; a missing mask file is named when it is drawn."""
    outline = outlines.get(file)
    if outline is None:
        return ()
    paths = [p for p in (root / file, root / outline.file) if p.is_file()]
    return outline, [(s.st_size, s.st_mtime_ns) for p in paths for s in [p.stat()]]
