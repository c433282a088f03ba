"""Reading of files: pictures, DICOM, NIfTI, and zips and folders of DICOM."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Sequence
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
# Bounds the memory of all threads together: a volume takes up to 1 GB and a file of 250 MB, a
# picture 200 MB, besides one slice at work. Pictures do not wait for volumes.
_VOLUMES, _PICTURES = threading.Semaphore(2), threading.Semaphore(2)


class _SilentDecoders(contextlib.AbstractContextManager[None]):
    """Context in which decoders' warnings, which may name a patient, are silent; for all threads.

    Filters of warnings belong to the process: the first thread that enters sets them, the last one
    that leaves restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                log = logging.getLogger("pydicom")
                self._undo.callback(setattr, log, "propagate", log.propagate)
                log.propagate = False
                self._undo.enter_context(warnings.catch_warnings(action="ignore"))
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


_SILENCE = _SilentDecoders()


def read_volume(
    source: Source | Sequence[str | Path | bytes], *, any_picture: bool = False
) -> Volume:
    """Open a file of any supported type, detected by its content and not by its name.

    Threads may read side by side: at most two volumes and two pictures, others wait.

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
        with _PICTURES if _is_picture(source) else _VOLUMES, _SILENCE:
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


def _is_picture(source: Source | Sequence[str | Path | bytes]) -> bool:
    if isinstance(source, str | Path):
        return Path(source).is_file() and detect_filetype(_read_head(Path(source))) == "picture"
    if isinstance(source, bytes):
        return detect_filetype(source[:HEAD_BYTES]) == "picture"
    return isinstance(source, Image.Image)


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _read(source: Source | Sequence[str | Path | bytes], any_picture: bool) -> Volume:
    if isinstance(source, Image.Image):
        return read_picture(source, any_picture)
    if not isinstance(source, str | Path | bytes):
        ordered = sorted(source, key=rank_name)
        return read_series([partial(_load, one) for one in ordered], any_picture)
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
        head, size = _read_head(path), path.stat().st_size
    check_bytes(size, MAX_BYTES if detect_filetype(head) == "picture" else MAX_VOLUME_BYTES)
    return source if isinstance(source, bytes) else path.read_bytes()
