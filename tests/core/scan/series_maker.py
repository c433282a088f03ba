"""Series of DICOM slices for the tests: files, zips of them, and the order they come out in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from dicom_maker import build_data_set, encode_native
from pydicom.dataset import Dataset

AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
PLANES = {"sagittal": SAGITTAL, "coronal": CORONAL, "axial": AXIAL}


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


def item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def build_frames(frames: Sequence[dict[str, Any]]) -> bytes:
    """Return a multi-frame file: frame n is picture n, with functional groups of its own."""
    stored = np.stack([picture(n) for n in range(len(frames))])
    ds = build_data_set(stored, NumberOfFrames=len(frames))
    ds.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[item(PixelSpacing=["0.5", "0.75"])])
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(**{name: [item(**attributes)] for name, attributes in groups.items()})
        for groups in frames
    ]
    return encode_native(ds, stored)


def place_frame(plane: str, n: int, offset: float = 0) -> dict[str, Any]:
    """Return the groups of slice n of a plane, 10 mm from slice n - 1."""
    normal = np.cross(*np.array(PLANES[plane]).reshape(2, 3))
    position = [float(x) for x in normal * (10 * n + offset)]
    return {
        "PlaneOrientationSequence": {"ImageOrientationPatient": PLANES[plane]},
        "PlanePositionSequence": {"ImagePositionPatient": position},
    }


def build_mosaic(tiles: np.ndarray, side: int, creator: str = "SIEMENS MR HEADER", **more: Any):
    """Return tiles (N, H, W) in rows of `side`, as Siemens stores them; N unless it is 0."""
    count, height, width = tiles.shape
    mosaic = np.zeros((side * height, side * width), dtype=np.uint16)
    for n, tile in enumerate(tiles):
        top, left = height * (n // side), width * (n % side)
        mosaic[top : top + height, left : left + width] = tile
    ds = build_data_set(mosaic, 12, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], **more)
    if creator:
        ds.private_block(0x0019, creator, create=True).add_new(0x0A, "US", count)
    return ds, mosaic
