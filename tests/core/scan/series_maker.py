"""Series of DICOM slices for the tests: files, zips of them, and the order they come out in."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from dicom_maker import build_data_set, encode_native

AXIAL = [1, 0, 0, 0, 1, 0]


def picture(n: int) -> np.ndarray:
    """Return slice n, whose values differ from all other slices."""
    return (np.add.outer(np.arange(32), np.arange(40)) + 100 * n).astype(np.uint16)


def build_slice(n: int, **attributes: Any) -> bytes:
    """Return slice n as a file, 5 mm above slice n - 1."""
    place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-100, -90, 5 * n - 30]}
    return encode_native(build_data_set(picture(n), **(place | attributes)), picture(n))


def zip_files(*files: bytes, names: list[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, data in enumerate(files):
            archive.writestr(names[n] if names else f"IMG{n:04d}", data)
    return buffer.getvalue()


def read_order(volume: Any) -> list[int]:
    return [int(values[0, 0]) // 100 for values in volume.data]
