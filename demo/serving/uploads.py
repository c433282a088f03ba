"""Uploads: decoded to pixels in memory; the stored files are deleted at once."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.scan import (
    MAX_SLICES,
    MAX_VOLUME_BYTES,
    NotAnMRIError,
    ScanError,
    Volume,
    rank_name,
    read_volume,
    to_uint8,
)
from demo.serving.expiring_cache import ExpiringCache

CACHE_SECONDS = 600
CACHE_COUNT = 64
CACHE_BYTES = 2**29
LOST_MESSAGE = "The upload was interrupted: choose the file again."
TOO_LARGE_MESSAGE = (
    f"At most {MAX_SLICES:,} files and {MAX_VOLUME_BYTES // 2**20} MB can be read at once: "
    "choose a single series."
)


@dataclass(frozen=True)
class Upload:
    """Decoded content of one file, or of the files of one series."""

    levels: np.ndarray | None  # (1, 224, 224) uint8, middle slice; None if it cannot be read
    refusal: str = ""  # one sentence for the visitor; empty where the scan is accepted
    is_colour: bool = False  # a colour picture, read only on request
    volume: Volume | None = None  # all slices, if the file can be opened


def open_volume(upload: Upload | None, *, any_picture: bool = False) -> Volume:
    """Return the slices of a program's upload.

    Raises:
        ScanError: no file, a file that cannot be read, or a colour picture without `any_picture`.
    """
    if upload is None:
        raise ScanError("Send one file.")
    if upload.volume is None or (upload.is_colour and not any_picture):
        raise ScanError(upload.refusal)
    return upload.volume


def describe_file(volume: Volume) -> dict[str, Any]:
    """Return, for JSON, kind and number of slices of a file, and notes on how it was read."""
    return {
        "kind": volume.kind,
        "slices": len(volume),
        "notes": [str(note) for note in volume.notes],
        "doubts": list(volume.doubts),
    }


def decode_upload(data: bytes | Sequence[bytes]) -> Upload:
    """Decode the bytes of a file or of a series; an unreadable file gives a refusal, no error."""
    try:
        return _build_upload(read_volume(data))
    except NotAnMRIError as error:
        volume = read_volume(data, any_picture=True)
        return Upload(_build_upload(volume).levels, str(error), is_colour=True, volume=volume)
    except ScanError as error:
        return Upload(None, str(error))


def _build_upload(volume: Volume) -> Upload:
    try:
        return Upload(to_uint8(volume.slice()), volume=volume)
    except ScanError as error:  # the middle slice is blank; another slice can be chosen
        return Upload(None, str(error), volume=volume if len(volume) > 1 else None)


class UploadStore:
    """Decoder of stored uploads, which deletes their files.

    Gradio names a stored upload after its content, so two visitors who upload the same picture
    share one file. The pixels of recent uploads therefore stay in memory for some minutes under
    that secret name, so that a second visitor in the queue still gets them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # of each upload being decoded: a second visitor waits for the same files alone
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._recent: ExpiringCache[Upload] = ExpiringCache(CACHE_SECONDS, CACHE_COUNT, CACHE_BYTES)

    def decode(self, stored: str | Sequence[str]) -> Upload:
        """Decode one stored file, or those of a series, and delete them."""
        paths = [Path(stored)] if isinstance(stored, str) else [Path(path) for path in stored]
        key = "\n".join(map(str, paths))
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            try:
                upload = self._read(paths)
            except OSError:
                return self._recent.get(key) or Upload(None, LOST_MESSAGE)
            finally:
                for path in paths:
                    _remove(path)
            self._recent.put(key, upload, 0 if upload.volume is None else upload.volume.data.nbytes)
            return upload

    def _read(self, paths: Sequence[Path]) -> Upload:
        if len(paths) > MAX_SLICES or sum(p.stat().st_size for p in paths) > MAX_VOLUME_BYTES:
            return Upload(None, TOO_LARGE_MESSAGE)
        data = [path.read_bytes() for path in sorted(paths, key=lambda path: rank_name(path.name))]
        return decode_upload(data[0] if len(data) == 1 else data)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # if it was the last file
