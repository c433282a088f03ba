"""Reading beside other threads: pictures do not wait for volumes, memory is bounded."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from dicom_maker import LOSSLESS, build_data_set, encode_compressed, encode_lossless_jpeg

from core.scan import Volume, read_volume, to_png
from demo.phantom import draw_phantom

STORED = np.add.outer(np.arange(36) * 50, np.arange(44) * 30).astype(np.uint16)
SERIES = encode_compressed(build_data_set(STORED, 12), [encode_lossless_jpeg(STORED, 12)], LOSSLESS)
PICTURE = to_png(draw_phantom(0, tumour=True))
SECONDS = 20  # until a thread that waits for ever is noticed


class SlowDecoder:
    """pydicom's decoder of JPEG Lossless, which waits for a signal and then warns."""

    def __init__(self, decode: Any) -> None:
        self.decode = decode
        self.inside = threading.Semaphore(0)
        self.may_end = threading.Event()

    def __call__(self, *values: Any) -> bytes:
        self.inside.release()
        assert self.may_end.wait(SECONDS)
        warnings.warn("Jane Doe", stacklevel=1)
        logging.getLogger("pydicom").warning("Jane Doe")
        decoded: bytes = self.decode(*values)
        return decoded


@contextmanager
def read_slowly(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Read a series in `count` threads that wait; yield the decoder and the futures."""
    from core.scan.dicom import codecs

    read_volume(SERIES)
    slow = SlowDecoder(codecs._decode_jpeg)
    monkeypatch.setattr(codecs, "_decode_jpeg", slow)
    with ThreadPoolExecutor(count) as pool:
        try:
            yield slow, [pool.submit(read_volume, SERIES) for _ in range(count)]
        finally:
            slow.may_end.set()


def get_values(future: Future[Volume]) -> np.ndarray:
    return future.result(SECONDS).data[0]


def test_a_picture_is_read_while_volumes_are_decoded(monkeypatch):
    with read_slowly(3, monkeypatch) as (slow, futures):
        assert slow.inside.acquire(timeout=SECONDS)
        assert len(read_volume(PICTURE)) == 1
        assert not any(future.done() for future in futures)
        slow.may_end.set()
        assert all(np.array_equal(get_values(future), STORED) for future in futures)


def test_at_most_two_volumes_are_read_at_once(monkeypatch):
    with read_slowly(3, monkeypatch) as (slow, futures):
        assert slow.inside.acquire(timeout=SECONDS)
        assert slow.inside.acquire(timeout=SECONDS)
        assert not slow.inside.acquire(timeout=0.3)
        slow.may_end.set()
        assert all(np.array_equal(get_values(future), STORED) for future in futures)


def test_decoders_stay_silent_when_another_thread_has_read(monkeypatch, caplog, capsys):
    """The decoders warn after another file was read; a warning would be an error here."""
    before = warnings.filters[:]
    with read_slowly(2, monkeypatch) as (slow, futures):
        assert slow.inside.acquire(timeout=SECONDS)
        read_volume(PICTURE)
        slow.may_end.set()
        assert all(np.array_equal(get_values(future), STORED) for future in futures)
    assert "Jane" not in caplog.text + "".join(capsys.readouterr())
    assert warnings.filters == before
    logging.getLogger("pydicom").warning("heard")
    assert "heard" in caplog.text
