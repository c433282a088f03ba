"""Reading of paths, and beside other threads: pictures do not wait for volumes."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from dicom_maker import (
    LOSSLESS,
    LOSSLESS_2000,
    LS,
    RLE,
    build_data_set,
    encode_by_pillow,
    encode_by_pydicom,
    encode_compressed,
    encode_lossless_jpeg,
)
from refusals import get_refusal
from series_maker import build_slice, read_order

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


def test_threads_do_not_mix_their_files():
    frames = {
        LOSSLESS: encode_lossless_jpeg(STORED, 12),
        RLE: encode_by_pydicom(STORED, RLE),
        LS: encode_by_pydicom(STORED, LS, 12),
        LOSSLESS_2000: encode_by_pillow(STORED, "JPEG2000", no_jp2=True),
    }
    files = [
        encode_compressed(build_data_set(STORED, 16), [one], syntax)
        for syntax, one in frames.items()
    ]
    with ThreadPoolExecutor(8) as pool:
        volumes = list(pool.map(read_volume, [*files, PICTURE] * 12))
    for n, volume in enumerate(volumes):
        expected = STORED if n % 5 < 4 else np.rint(draw_phantom(0, tumour=True)[0].numpy() * 255)
        assert np.array_equal(volume.data[0], expected)


@pytest.mark.slow
def test_a_long_series_takes_seconds():
    """200 slices of 512 x 512 in JPEG Lossless: at most 5 s of a free core."""
    head = draw_phantom(0, tumour=True)[0].repeat_interleave(3, 0).repeat_interleave(3, 1)
    noise = np.random.default_rng(0).normal(0, 25, (512, 512))
    values = head[80:592, 80:592].numpy() * 3000 + noise
    stored = values.clip(0, 4095).astype(np.uint16)
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=6, bitspersample=12)
    files = [
        encode_compressed(build_data_set(stored, 12, InstanceNumber=n), [frame], LOSSLESS)
        for n in range(200)
    ]
    started = time.thread_time()
    volume = read_volume(files)
    assert time.thread_time() - started < 5
    assert np.array_equal(volume.data[199], stored)


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


# --- files that the system does not give ----------------------------------------------------------


@pytest.fixture
def lock(monkeypatch):
    """Return a function that forbids to open a file; root may open all others."""

    def forbid(path: Path) -> None:
        usual = Path.open, Path.read_bytes

        def refuse(one, *args, method=0, **options):
            if one == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(one))
            return usual[method](one, *args, **options)

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "read_bytes", lambda one: refuse(one, method=1))

    return forbid


def test_a_file_without_permission_is_not_called_damaged(tmp_path, lock):
    path = tmp_path / "secret.dcm"
    path.write_bytes(build_slice(0))
    lock(path)
    for source in (path, str(path)):
        assert get_refusal(read_volume, source) == "The file may not be read: permission denied."


def test_a_folder_without_permission_is_not_called_empty(tmp_path, monkeypatch, lock):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    lock(tmp_path)
    assert get_refusal(read_volume, tmp_path) == "The file may not be read: permission denied."


def test_a_locked_subfolder_of_a_series_is_counted(tmp_path, monkeypatch, lock):
    for n in range(3):
        (tmp_path / f"{n}").write_bytes(build_slice(n))
    (tmp_path / "locked").mkdir()
    lock(tmp_path / "locked")
    scan_folder = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan_folder(path)

    monkeypatch.setattr("os.scandir", refuse)
    volume = read_volume(tmp_path)
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes == ("Of 4 files some are left out: 1 locked or too large.",)


def test_a_locked_file_of_a_series_is_counted(tmp_path, lock):
    for n in range(4):
        (tmp_path / f"{n}").write_bytes(build_slice(n))
    lock(tmp_path / "2")
    for source in (tmp_path, sorted(tmp_path.iterdir())):
        volume = read_volume(source)
        assert read_order(volume) == [0, 1, 3]
        assert volume.notes[0] == "Of 4 files some are left out: 1 locked or too large."


def test_a_name_that_is_too_long_is_not_called_damaged():
    for source in ("x" * 5000, Path("y" * 300)):
        message = get_refusal(read_volume, source)
        assert message == "The file may not be read: file name too long."


def test_a_missing_file_stays_missing():
    assert get_refusal(read_volume, "nowhere") == "There is no such file."


def test_an_empty_file_stays_empty(tmp_path):
    (tmp_path / "empty").touch()
    for source in (b"", tmp_path / "empty", [b""], tmp_path):
        assert get_refusal(read_volume, source) == "The file is empty."
