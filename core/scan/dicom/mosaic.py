"""Mosaics: Siemens' pictures whose tiles are the slices of a volume."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from core.scan.volume import Doubt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

COUNT, CSA_HEADER = (0x0019, 0x100A), (0x0029, 0x1010)  # private: the number of tiles is in either
PRIVATE = ((0x0019, 0x0010), COUNT, (0x0029, 0x0010), CSA_HEADER)


def count_tiles(ds: Dataset, shape: tuple[int, int]) -> tuple[int, list[str]]:
    """Return the slices in each frame, and a note where the picture is a mosaic."""
    if "MOSAIC" not in (ds.get("ImageType") or ()):
        return 1, []
    count = 0
    with contextlib.suppress(Exception):  # a malformed attribute must not refuse a good picture
        count = _read_count(ds)
    side = math.isqrt(max(count - 1, 0)) + 1
    if count < 2 or shape[0] % side or shape[1] % side:
        return 1, [Doubt("The picture is a mosaic of slices, shown as one: export them singly.")]
    return count, [f"Each picture is a mosaic of {count} slices: either end may be the first."]


def _read_count(ds: Dataset) -> int:
    from nibabel.nicom.csareader import get_csa_header, get_n_mosaic

    if COUNT in ds:
        value = ds[COUNT].value
        return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    return int(get_n_mosaic(get_csa_header(ds)) or 0)
