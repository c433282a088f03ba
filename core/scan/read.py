"""Reading of files: pictures, DICOM, NIfTI, and zips and folders of DICOM."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from core.scan.archive import files_in_folder, files_in_zip, rank_name
from core.scan.canonical import SIZE
from core.scan.dicom.series import read_series
from core.scan.errors import (
    MAX_BYTES,
    MAX_VOLUME_BYTES,
    ScanError,
    check_bytes,
    damage_error,
    empty_error,
)
from core.scan.filetype import HEAD_BYTES, detect_filetype
from core.scan.image import read_picture
from core.scan.nifti import read_nifti
from core.scan.volume import Volume

Source = str | Path | bytes | Image.Image
# One file at a time: Python's warning filters belong to the process, not to a thread, and the
# memory limits then hold for all threads together.
_READ_LOCK = threading.Lock()


def read_volume(
    source: Source | Sequence[str | Path | bytes], *, any_picture: bool = False
) -> Volume:
    """Open a file of any supported type, detected by its content and not by its name.

    Args:
        source: a path, the bytes of a file, or an open PIL picture; a folder or several files are
            taken for the slices of DICOM series. Pictures are PNG, JPEG, BMP, TIFF and WebP.
        any_picture: read colour photographs too, which are refused otherwise.

    Raises:
        ScanError: the file is missing, empty, too large, damaged or of an unknown type, or the
            packages of the extra `medical` are missing.
        NotAnMRIError: the picture is a colour photograph.
    """
    try:
        with _READ_LOCK, _mute_decoders():
            return _read(source, any_picture)
    except ScanError:
        raise
    except ImportError:
        raise ScanError(
            "DICOM and NIfTI files need more packages: install the extra 'medical' "
            "(pydicom, imagecodecs and nibabel)."
        ) from None
    except Exception as error:  # a damaged file makes decoders raise almost anything
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise ScanError(f"The file may not be read: {error.strerror.lower()}.") from None
        raise damage_error() from error


def read_scan(source: Source, *, any_picture: bool = False, size: int = SIZE) -> Tensor:
    """Read a picture, or the middle slice of a volume, as a canonical scan.

    Args:
        source: as for `read_volume`, whose `slice` gives the other slices.
        any_picture: read colour photographs too, which are refused otherwise.
        size: side of the square result in pixels.

    Returns:
        Grey float32 tensor (1, size, size) in [0, 1], every value a multiple of 1 / 255.

    Raises:
        ScanError: as for `read_volume`, or the slice is blank.
        NotAnMRIError: the picture is a colour photograph.
    """
    return read_volume(source, any_picture=any_picture).slice(size=size)


@contextlib.contextmanager
def _mute_decoders() -> Iterator[None]:
    """Silence decoders' warnings, which quote metadata that may name a patient."""
    log = logging.getLogger("pydicom")
    propagates, log.propagate = log.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.propagate = propagates


def _read(source: Source | Sequence[str | Path | bytes], any_picture: bool) -> Volume:
    if isinstance(source, Image.Image):
        return read_picture(source, any_picture)
    if not isinstance(source, str | Path | bytes):
        names = ["" if isinstance(one, bytes) else str(one) for one in source]
        order = sorted(range(len(source)), key=lambda n: rank_name(names[n]))
        return read_series([partial(_load, source[n]) for n in order], any_picture)
    if not isinstance(source, bytes) and Path(source).is_dir():
        return read_series(files_in_folder(Path(source)), any_picture)
    data = _load(source)
    if not data:
        raise empty_error()
    kind = detect_filetype(data[:HEAD_BYTES])
    if kind == "picture":
        return read_picture(data, any_picture)
    if kind == "dicom":
        return read_series([lambda: data], any_picture)
    if kind == "zip":
        return read_series(files_in_zip(data), any_picture)
    return read_nifti(data)


def _load(source: str | Path | bytes) -> bytes:
    """Load the bytes of a file within the size limit of its type."""
    if isinstance(source, bytes):
        head, size = source[:HEAD_BYTES], len(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise ScanError("There is no such file.")
        with path.open("rb") as file:
            head, size = file.read(HEAD_BYTES), path.stat().st_size
    check_bytes(size, MAX_BYTES if detect_filetype(head) == "picture" else MAX_VOLUME_BYTES)
    return source if isinstance(source, bytes) else path.read_bytes()
