"""Uploads come in here: decoded to pixels in memory, and the stored file removed at once."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.scan import NotAnMRIError, ScanError, Volume, read_volume, to_uint8

REMEMBER_SECONDS = 600
REMEMBER_COUNT = 64
LOST = "The upload was interrupted: choose the file again."


@dataclass(frozen=True)
class Upload:
    """What became of one dropped file."""

    levels: np.ndarray | None  # (1, 224, 224) uint8 of the middle slice; None: cannot be read
    refusal: str = ""  # one sentence for the visitor; empty where the scan is accepted
    is_colour: bool = False  # readable, but refused as a colour picture: readable on request
    volume: Volume | None = None  # all of it, where the file can be opened


def decode(data: bytes) -> Upload:
    """Reads a file's bytes; every bad file becomes a refusal with its sentence."""
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


class Inbox:
    """Turns stored uploads into pixels once, and deletes them.

    Gradio names a stored upload after its content, so two visitors who drop the same picture share
    one file. The pixels of the last few uploads therefore stay in memory for some minutes under
    that secret name: the second visitor, who may wait in the queue meanwhile, still gets them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, tuple[float, Upload]] = {}

    def take(self, path: str) -> Upload:
        """The decoded upload stored at `path`; the file and its folder are gone afterwards."""
        with self._lock:
            now = time.monotonic()
            fresh = [(k, v) for k, v in self._recent.items() if now - v[0] < REMEMBER_SECONDS]
            self._recent = dict(fresh[-REMEMBER_COUNT:])
            try:
                upload = decode(Path(path).read_bytes())
            except OSError:
                known = self._recent.get(path)
                return (
                    known[1]
                    if known
                    else Upload(None, "The upload was interrupted: choose the file again.")
                )
            self._recent[path] = (now, upload)
            with contextlib.suppress(OSError):
                Path(path).unlink()
                Path(path).parent.rmdir()
            return upload
