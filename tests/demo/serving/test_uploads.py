from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_maker import build_data_set, encode_native
from torch import Tensor

from core.scan import from_uint8, to_png
from demo.serving import uploads
from demo.serving.uploads import UploadStore, decode_upload


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "0123abcd" / "Jane Doe 1970.png"
    path.parent.mkdir()
    path.write_bytes(data)
    return path


def test_an_upload_becomes_pixels_and_its_file_is_gone(scan: Tensor, tmp_path: Path) -> None:
    path = stored(tmp_path, to_png(scan))
    upload = UploadStore().decode(str(path))
    assert upload.levels is not None and torch.equal(from_uint8(upload.levels), scan)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_file_is_gone_too(tmp_path: Path) -> None:
    upload = UploadStore().decode(str(stored(tmp_path, b"<svg></svg>")))
    assert upload.levels is None and upload.refusal.endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_a_second_visitor_with_the_same_file_still_gets_it(scan: Tensor, tmp_path: Path) -> None:
    store = UploadStore()
    path = str(stored(tmp_path, to_png(scan)))
    first, second = store.decode(path), store.decode(path)  # Gradio stores equal files once
    assert second.levels is not None and (first.levels == second.levels).all()


def test_visitors_with_other_files_do_not_wait(
    scan: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow file is decoded while another is read, and its second visitor waits for it."""
    begun, end, decoded = threading.Event(), threading.Event(), []

    def decode_slowly(data: bytes) -> uploads.Upload:
        decoded.append(data)
        if data == b"slow":
            begun.set()
            assert end.wait(20)
        return decode_upload(to_png(scan))

    monkeypatch.setattr(uploads, "decode_upload", decode_slowly)
    store = UploadStore()
    slow, fast = tmp_path / "0" / "slow", tmp_path / "1" / "fast"
    for path in (slow, fast):
        path.parent.mkdir()
        path.write_bytes(path.name.encode())
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(store.decode, str(slow))
        assert begun.wait(20)
        second = pool.submit(store.decode, str(slow))
        try:
            assert pool.submit(store.decode, str(fast)).result(20).levels is not None
            assert not first.done() and not second.done()
        finally:
            end.set()
        assert first.result().levels is second.result().levels is not None
    assert decoded == [b"slow", b"fast"] and not store._locks


def test_pixels_are_forgotten(scan: Tensor, tmp_path: Path) -> None:
    store = UploadStore()
    path = str(stored(tmp_path, to_png(scan)))
    store.decode(path)
    store._recent.seconds = 0
    assert store.decode(path).refusal == "The upload was interrupted: choose the file again."


def test_a_photograph_is_refused_but_kept_readable(photograph: bytes) -> None:
    upload = decode_upload(photograph)
    assert upload.is_colour and upload.levels is not None
    assert "does not look like a brain MRI" in upload.refusal


def series(folder: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Store the slices of one series as uploads, last one first; return paths and values."""
    values = np.random.default_rng(0).integers(0, 4000, (count, 40, 40), dtype=np.uint16)
    paths = []
    for n in reversed(range(count)):
        place = {"ImagePositionPatient": [0, 0, n], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        path = folder / str(n) / "Jane Doe.dcm"
        path.parent.mkdir()
        path.write_bytes(encode_native(build_data_set(values[n], **place), values[n]))
        paths.append(str(path))
    return paths, values


def test_several_files_become_one_volume_and_are_gone(tmp_path: Path) -> None:
    store = UploadStore()
    paths, values = series(tmp_path, 3)
    upload = store.decode(paths)
    assert upload.volume is not None and (upload.volume.data == values).all()
    assert upload.levels is not None and list(tmp_path.iterdir()) == []
    assert store.decode(paths).volume is upload.volume  # a second visitor's, before it was decoded


def test_files_without_positions_lie_in_the_natural_order_of_their_names(tmp_path: Path) -> None:
    paths = []
    for n in (1, 10, 2):
        stored = (np.add.outer(np.arange(40), np.arange(40)) + 100 * n).astype(np.uint16)
        path = tmp_path / f"{11 - n}" / f"IM{n}.dcm"
        path.parent.mkdir()
        path.write_bytes(encode_native(build_data_set(stored), stored))
        paths.append(str(path))
    volume = UploadStore().decode(paths).volume
    assert volume is not None and volume.data[:, 0, 0].tolist() == [100, 200, 1000]


def test_files_are_counted_and_weighed_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_VOLUME_BYTES", 3000)
    paths, _ = series(tmp_path, 3)
    assert UploadStore().decode(paths).refusal == uploads.TOO_LARGE_MESSAGE
    assert list(tmp_path.iterdir()) == []


def test_a_volume_too_large_to_remember_is_still_given(tmp_path: Path) -> None:
    store = UploadStore()
    store._recent.size = 100
    paths, _ = series(tmp_path, 2)
    assert store.decode(paths).volume is not None and len(store._recent) == 0


def test_a_volume_with_a_blank_middle_can_still_be_looked_at() -> None:
    values = np.zeros((3, 40, 40), dtype=np.uint16)
    values[2, 10:30, 10:30] = 900
    upload = decode_upload(encode_native(build_data_set(values, NumberOfFrames=3), values))
    assert upload.levels is None and "blank" in upload.refusal and upload.volume is not None
