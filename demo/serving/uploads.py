"""Uploads come in here: decoded to pixels in memory, and the stored files removed at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.scan import (
    MAX_SLICES,
    MAX_VOLUME_BYTES,
    NotAnMRIError,
    ScanError,
    Volume,
    read_volume,
    to_uint8,
)
from demo.serving.expiring_cache import ExpiringCache

REMEMBER_SECONDS = 600
REMEMBER_COUNT = 64
REMEMBER_BYTES = 2**29
LOST = "The upload was interrupted: choose the file again."
MANY = (
    f"At most {MAX_SLICES:,} files and {MAX_VOLUME_BYTES // 2**20} MB can be read at once: "
    "send one series alone."
)


@dataclass(frozen=True)
class Upload:
    """What became of one drop: a file, or the several files of one series."""

    levels: np.ndarray | None  # (1, 224, 224) uint8 of the middle slice; None: cannot be read
    refusal: str = ""  # one sentence for the visitor; empty where the scan is accepted
    is_colour: bool = False  # readable, but refused as a colour picture: readable on request
    volume: Volume | None = None  # all of it, where the file can be opened


def decode_upload(data: bytes | Sequence[bytes]) -> Upload:
    """Opens a file's bytes, or those of a series; every bad file becomes a refusal in words."""
    try:
        return _opened(read_volume(data))
    except NotAnMRIError as error:
        volume = read_volume(data, any_picture=True)
        return Upload(_opened(volume).levels, str(error), is_colour=True, volume=volume)
    except ScanError as error:
        return Upload(None, str(error))


def _opened(volume: Volume) -> Upload:
    try:
        return Upload(to_uint8(volume.slice()), volume=volume)
    except ScanError as error:  # the middle slice is blank: of a volume another may be chosen
        return Upload(None, str(error), volume=volume if len(volume) > 1 else None)


class UploadStore:
    """Turns stored uploads into pixels once, and deletes them.

    Gradio names a stored upload after its content, so two visitors who drop the same picture share
    one file. The pixels of the last few uploads therefore stay in memory for some minutes under
    that secret name: the second visitor, who may wait in the queue meanwhile, still gets them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: ExpiringCache[Upload] = ExpiringCache(
            REMEMBER_SECONDS, REMEMBER_COUNT, REMEMBER_BYTES
        )

    def decode(self, stored: str | Sequence[str]) -> Upload:
        """The decoded upload, of one path or those of a series; its files are gone afterwards."""
        paths = [Path(stored)] if isinstance(stored, str) else [Path(path) for path in stored]
        key = "\n".join(map(str, paths))
        with self._lock:
            try:
                upload = self._read(paths)
            except OSError:
                return self._recent.get(key) or Upload(None, LOST)
            finally:
                for path in paths:
                    _remove(path)
            self._recent.put(key, upload, 0 if upload.volume is None else upload.volume.data.nbytes)
            return upload

    def _read(self, paths: Sequence[Path]) -> Upload:
        if len(paths) > MAX_SLICES or sum(p.stat().st_size for p in paths) > MAX_VOLUME_BYTES:
            return Upload(None, MANY)
        data = [path.read_bytes() for path in paths]
        return decode_upload(data[0] if len(data) == 1 else data)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # where it was the last
