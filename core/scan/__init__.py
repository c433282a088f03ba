"""File formats: from any file to the canonical scan. No network weights, no Gradio.

>>> volume = read_volume("series.zip")  # doctest: +SKIP
>>> volume.data.shape, volume.notes, volume.slice(11).shape  # doctest: +SKIP
((24, 512, 512), (), torch.Size([1, 224, 224]))
"""

from core.scan.archive import rank_name
from core.scan.canonical import SIZE, from_uint8, to_image, to_png, to_uint8
from core.scan.errors import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SLICES,
    MAX_UNPACKED,
    MAX_VOLUME_BYTES,
    MIN_SIDE,
    NotAnMRIError,
    ScanError,
)
from core.scan.image import FORMATS
from core.scan.read import read_scan, read_volume
from core.scan.volume import Volume, Window

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SLICES",
    "MAX_UNPACKED",
    "MAX_VOLUME_BYTES",
    "MIN_SIDE",
    "SIZE",
    "NotAnMRIError",
    "ScanError",
    "Volume",
    "Window",
    "from_uint8",
    "rank_name",
    "read_scan",
    "read_volume",
    "to_image",
    "to_png",
    "to_uint8",
]
