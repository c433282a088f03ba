"""NIfTI volumes, turned as a radiologist looks at them, however the file happens to lie."""

from __future__ import annotations

import gzip
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from core.scan.errors import MB, ScanError, check_volume, damaged, not_numbers
from core.scan.filetype import HEAD, NIFTI_2, kind_of
from core.scan.volume import Volume, percentiles

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

LONGEST_HEADER = 16 * MB  # with all extensions
THICK = 1.5  # how much further slices lie apart than pixels where a volume was taken in slices
AS_IS, TURNED = slice(None), slice(None, None, -1)
# For slices from left to right, back to front and foot to head: what is turned of the axes that
# run to the right, front and head, in what order they then stand as (slice, row, column), and
# what is at the left, right, top and bottom. The patient's left is on the right, as ever.
View = tuple[tuple[slice, slice, slice], tuple[int, int, int], tuple[str, str, str, str]]
VIEWS: tuple[View, View, View] = (
    ((AS_IS, TURNED, TURNED), (0, 2, 1), ("A", "P", "S", "I")),
    ((TURNED, AS_IS, TURNED), (1, 2, 0), ("R", "L", "S", "I")),
    ((TURNED, TURNED, AS_IS), (2, 1, 0), ("R", "L", "A", "P")),
)


def read_nifti(data: bytes) -> Volume:
    """The first volume of a file, gzipped or not, in the plane it was taken in; axial if in none.

    Raises:
        ScanError: not a NIfTI file, half of one, no plain numbers, or beyond the limits.
        Exception: of any kind, where the file is damaged.
    """
    from nibabel.orientations import apply_orientation

    is_packed = kind_of(data[:HEAD]) == "gzip"
    packed = io.BytesIO(data)
    stream = gzip.GzipFile(fileobj=packed) if is_packed else packed  # unpacks what is read alone
    header, start = _header(stream)
    shape = header.get_data_shape()
    volumes = math.prod(shape[3:])
    shape = (*shape, 1, 1)[:3]
    turns, sizes, is_known = _orientation(header)
    axes = turns[:, 0].argsort().astype(int)  # those that run to the right, front and head
    turned, order, marks = _view(np.array(shape)[axes], sizes[axes])
    check_volume(*(shape[axes[n]] for n in order))
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError("The NIfTI file holds no plain grey values: save it as int16 or float32.")
    if not is_packed and start + math.prod(shape) * dtype.itemsize > len(data):
        raise _cut_off()
    stream.seek(start)
    slope, intercept = header.get_slope_inter()
    stored = _values(stream, shape, dtype, slope or 1.0, intercept or 0.0)
    values = apply_orientation(stored, turns)[turned].transpose(order)
    notes = []
    if volumes > 1:
        notes.append(f"The file holds {volumes} volumes: the first is read.")
    if not is_known:
        notes.append("The file does not say which side is the patient's left.")
    gap, row, column = (float(sizes[axes[n]]) for n in order)
    return Volume(
        values,
        percentiles(values),
        "NIfTI",
        spacing=(row, column),
        gap=gap,
        marks=marks if is_known else None,
        notes=tuple(notes),
    )


def _header(stream: io.BytesIO | gzip.GzipFile) -> tuple[Nifti1Header, int]:
    """The header of either version, and where the values start."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = stream.read(540)
    if kind_of(head) != "nifti":
        raise ScanError("The gzip file holds no NIfTI volume: unpack it and send what is in it.")
    is_second = head[4:8] in NIFTI_2
    header = Nifti2Header(head, check=False) if is_second else Nifti1Header(head[:348], check=False)
    if header["magic"].item().startswith(b"ni"):
        raise ScanError("The file is half of a pair (.hdr and .img): save both as one .nii file.")
    start = max(int(header["vox_offset"]), 544 if is_second else 352)
    if start > LONGEST_HEADER:
        raise damaged()
    return header, start


def _orientation(header: Nifti1Header) -> tuple[np.ndarray, np.ndarray, bool]:
    """Direction of each axis, voxel sides in mm, and True where the file defines left and right."""
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


def _view(shape: np.ndarray, sizes: np.ndarray) -> View:
    """Return the radiological view of a volume whose axes run to the right, front and head."""
    if shape.min() == 1:
        return VIEWS[int(shape.argmin())]
    thickest = int(sizes.argmax())
    return VIEWS[thickest if sizes[thickest] > THICK * np.median(sizes) else 2]


def _values(
    stream: io.BytesIO | gzip.GzipFile,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    slope: float,
    intercept: float,
) -> np.ndarray:
    """Rescaled values (X, Y, Z) float32, read plane by plane so that nothing is held twice."""
    columns, rows, planes = shape
    values = np.empty((planes, rows, columns), dtype=np.float32)
    for plane in values:
        try:
            raw = stream.read(plane.size * dtype.itemsize)
        except EOFError:
            raise _cut_off() from None
        if len(raw) < plane.size * dtype.itemsize:
            raise _cut_off()
        stored = np.frombuffer(raw, dtype).reshape(plane.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told below
            plane[:] = stored * slope + intercept
        if not np.isfinite(plane).all():
            raise not_numbers()
    return values.T


def _cut_off() -> ScanError:
    return ScanError("The NIfTI file is cut off: it ends before the volume does; send it again.")
