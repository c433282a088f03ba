"""A picture file, opened and checked."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

from PIL import Image
from torch import Tensor

from core.scan.canonical import SIZE
from core.scan.errors import MAX_BYTES, ScanError, check_bytes, damaged
from core.scan.picture import read_picture
from core.scan.volume import Volume

Source = str | Path | bytes | Image.Image
# One file is opened at a time: Python's warning filters belong to the process, not to a thread.
_ONE_AT_A_TIME = threading.Lock()


def read_volume(source: Source, *, any_picture: bool = False) -> Volume:
    """Opens a picture: a volume of one slice.

    Args:
        source: a path, the bytes of a file, or an open PIL picture (PNG, JPEG, BMP, TIFF or WebP).
        any_picture: read colour photographs too, which are refused otherwise.

    Raises:
        ScanError: the file is missing, empty, too large, damaged, animated, or no picture.
        NotAnMRIError: the picture is a colour photograph.
    """
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            # Pillow warns of odd metadata (the pixels decide) and of sizes (checked here)
            warnings.simplefilter("ignore")
            picture = source if isinstance(source, Image.Image) else _load(source)
            return read_picture(picture, any_picture)
    except ScanError:
        raise
    except Exception as error:  # a damaged file makes decoders raise almost anything
        raise damaged() from error


def read_scan(source: Source, *, any_picture: bool = False, size: int = SIZE) -> Tensor:
    """Reads a picture as a canonical scan.

    Args:
        source: as for `read_volume`.
        any_picture: read colour photographs too, which are refused otherwise.
        size: side of the square result in pixels.

    Returns:
        Grey float32 tensor (1, size, size) in [0, 1], every value a multiple of 1 / 255.

    Raises:
        ScanError: the file is missing, empty, too large, damaged, animated, blank, or no picture.
        NotAnMRIError: the picture is a colour photograph.
    """
    return read_volume(source, any_picture=any_picture).slice(size=size)


def _load(source: str | Path | bytes) -> bytes:
    """The bytes of a file that is not larger than one may be."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise ScanError("There is no such file.")
        size = path.stat().st_size
    if not size:
        raise ScanError("The file is empty.")
    check_bytes(size, MAX_BYTES)
    return source if isinstance(source, bytes) else path.read_bytes()
