"""Any file to the one canonical scan that every other part works on.

>>> read_scan("scan.png").shape  # doctest: +SKIP
torch.Size([1, 224, 224])
"""

from core.scan.canonical import SIZE, from_uint8, to_image, to_png, to_uint8
from core.scan.errors import (
    MAX_BYTES,
    MAX_PIXELS,
    MIN_SIDE,
    NotAnMRIError,
    ScanError,
)
from core.scan.picture import FORMATS
from core.scan.read import read_scan, read_volume
from core.scan.volume import Volume, Window

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SIZE",
    "NotAnMRIError",
    "ScanError",
    "Volume",
    "Window",
    "from_uint8",
    "read_scan",
    "read_volume",
    "to_image",
    "to_png",
    "to_uint8",
]
