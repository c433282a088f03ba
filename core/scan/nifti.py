"""NIfTI volumes, reoriented to the radiological view."""

from __future__ import annotations

import gzip
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from core.scan.errors import MB, ScanError, check_volume, damage_error, not_numbers_error
from core.scan.filetype import HEAD_BYTES, NIFTI_2, detect_filetype
from core.scan.levels import find_levels
from core.scan.volume import Volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

MAX_HEADER = 16 * MB  # with all extensions
MIN_THICKNESS_RATIO = 1.5  # slice distance over pixel size of a volume acquired in slices
SAME, FLIPPED = slice(None), slice(None, None, -1)
# For sagittal, coronal and axial slices: flips of the axes that run to the right, front and head,
# their order as (slice, row, column), and the marks at the left, right, top and bottom. The
# patient's left is on the right, by radiological convention.
View = tuple[tuple[slice, slice, slice], tuple[int, int, int], tuple[str, str, str, str]]
VIEWS: tuple[View, View, View] = (
    ((SAME, FLIPPED, FLIPPED), (0, 2, 1), ("A", "P", "S", "I")),
    ((FLIPPED, SAME, FLIPPED), (1, 2, 0), ("R", "L", "S", "I")),
    ((FLIPPED, FLIPPED, SAME), (2, 1, 0), ("R", "L", "A", "P")),
)


def read_nifti(data: bytes) -> Volume:
    """Read the first volume of a file, gzipped or not, in its acquisition plane; else axial.

    Raises:
        ScanError: not a NIfTI file, half of a pair, not grey values, or above the limits.
        Exception: of any kind, where the file is damaged.
    """
    from nibabel.orientations import apply_orientation

    is_packed = detect_filetype(data[:HEAD_BYTES]) == "gzip"
    packed = io.BytesIO(data)
    stream = gzip.GzipFile(fileobj=packed) if is_packed else packed  # unpacks what is read alone
    header, start = _read_header(stream)
    shape = header.get_data_shape()
    volumes = math.prod(shape[3:])
    shape = (*shape, 1, 1)[:3]
    turns, sizes, is_known = _read_orientation(header)
    axes = turns[:, 0].argsort().astype(int)  # axes that run to the right, front and head
    turned, order, marks = _choose_view(np.array(shape)[axes], sizes[axes])
    check_volume(*(shape[axes[n]] for n in order))
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError(
            "The NIfTI file does not contain plain grey values: save it as int16 or float32."
        )
    if not is_packed and start + math.prod(shape) * dtype.itemsize > len(data):
        raise _incomplete_error()
    stream.seek(start)
    slope, intercept = header.get_slope_inter()
    stored = _read_values(stream, shape, dtype, slope or 1.0, intercept or 0.0)
    values = apply_orientation(stored, turns)[turned].transpose(order)
    levels, notes = find_levels(values)
    if volumes > 1:
        notes.append(f"The file contains {volumes} volumes: the first is read.")
    if not is_known:
        notes.append("The file does not say which side is the patient's left.")
    gap, row, column = (float(sizes[axes[n]]) for n in order)
    return Volume(
        values,
        levels,
        "NIfTI",
        spacing=(row, column),
        gap=gap,
        marks=marks if is_known else None,
        notes=tuple(notes),
    )


def _read_header(stream: io.BytesIO | gzip.GzipFile) -> tuple[Nifti1Header, int]:
    """Read the header of either version, and the position of the values."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = stream.read(540)
    if detect_filetype(head) != "nifti":
        raise ScanError(
            "The gzip file does not contain a NIfTI volume: unpack it and send its contents."
        )
    is_second = head[4:8] in NIFTI_2
    header = Nifti2Header(head, check=False) if is_second else Nifti1Header(head[:348], check=False)
    if header["magic"].item().startswith(b"ni"):
        raise ScanError("The file is half of a pair (.hdr and .img): save both as one .nii file.")
    start = max(int(header["vox_offset"]), 544 if is_second else 352)
    if start > MAX_HEADER:
        raise damage_error()
    return header, start


def _read_orientation(header: Nifti1Header) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read axis directions, voxel sides in mm, and True if the file defines left and right."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    if header["sform_code"] > 0 or header["qform_code"] > 0:
        affine = header.get_best_affine()
        if np.isfinite(affine).all() and np.linalg.matrix_rank(affine) == 4:
            return io_orientation(affine), voxel_sizes(affine), True
    sizes = np.abs(np.array((*header.get_zooms(), 1, 1)[:3], dtype=np.float64))
    if not (np.isfinite(sizes).all() and sizes.all()):
        sizes = np.ones(3)
    return np.array([[0, 1], [1, 1], [2, 1]]), sizes, False


def _choose_view(shape: np.ndarray, sizes: np.ndarray) -> View:
    """Return the radiological view of a volume whose axes run to the right, front and head."""
    if shape.min() == 1:
        return VIEWS[int(shape.argmin())]
    thickest = int(sizes.argmax())
    return VIEWS[thickest if sizes[thickest] > MIN_THICKNESS_RATIO * np.median(sizes) else 2]


def _read_values(
    stream: io.BytesIO | gzip.GzipFile,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    slope: float,
    intercept: float,
) -> np.ndarray:
    """Read rescaled values (X, Y, Z) float32, plane by plane to save memory."""
    columns, rows, planes = shape
    values = np.empty((planes, rows, columns), dtype=np.float32)
    for plane in values:
        try:
            raw = stream.read(plane.size * dtype.itemsize)
        except EOFError:
            raise _incomplete_error() from None
        if len(raw) < plane.size * dtype.itemsize:
            raise _incomplete_error()
        stored = np.frombuffer(raw, dtype).reshape(plane.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported below
            plane[:] = stored * slope + intercept
        if np.isinf(plane).any():
            raise not_numbers_error()
    return values.T


def _incomplete_error() -> ScanError:
    return ScanError("The NIfTI file is cut off before the end of the volume: send it again.")
