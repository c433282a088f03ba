"""NIfTI of every type, version and orientation opens in the radiological view."""

from __future__ import annotations

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform

from core.scan import ScanError, read_scan, read_volume

SHAPE = (38, 46, 33)  # towards the patient's right, front and head


def head(dtype: str = "int16") -> np.ndarray:
    """Return values that differ along each axis, brightest at the left front top."""
    x, y, z = np.indices(SHAPE)
    return ((37 - x) * 2 + y + z * 2).astype(dtype)


def nifti(
    values: np.ndarray, sides: tuple[float, float, float] = (1, 1, 1), second: bool = False
) -> bytes:
    image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image)(
        values, np.diag([*sides, 1]), dtype=values.dtype
    )
    return image.to_bytes()


def axial(values: np.ndarray) -> np.ndarray:
    """Return the axial view: foot to head, front on top, the patient's left on the right."""
    return values[::-1, ::-1].transpose(2, 1, 0)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64", ">i2"],
)
def test_values_are_exact(dtype, second, packed):
    data = nifti(head("int64").astype(dtype), second=second)
    volume = read_volume(gzip.compress(data, 1) if packed else data)
    assert volume.kind == "NIfTI"
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, axial(head().astype(dtype)))
    assert volume.slice().shape == (1, 224, 224)


def test_scaling_gives_the_files_own_units():
    image = nibabel.Nifti1Image(head(), np.eye(4))
    data = bytearray(image.to_bytes())
    data[112:120] = struct.pack("<2f", 0.5, -20)
    assert np.allclose(read_volume(bytes(data)).data, axial(head()) * 0.5 - 20)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_however_the_file_lies_the_view_is_the_same(axes, flips):
    stored = np.array([*zip(axes, flips, strict=True)])
    turns = ornt_transform(io_orientation(np.eye(4)), stored)
    affine = inv_ornt_aff(turns, SHAPE)
    values = nibabel.orientations.apply_orientation(head(), turns)
    volume = read_volume(nibabel.Nifti1Image(values, affine).to_bytes())
    assert volume.marks == ("R", "L", "A", "P")
    assert np.array_equal(volume.data, axial(head()))
    assert volume.data[-1, 0, -1] == head().max()


@pytest.mark.parametrize(
    ("sides", "marks", "order"),
    [
        ((1, 1, 1), ("R", "L", "A", "P"), (2, 1, 0)),
        ((1, 1, 5), ("R", "L", "A", "P"), (2, 1, 0)),
        ((1, 5, 1.2), ("R", "L", "S", "I"), (1, 2, 0)),
        ((6, 1, 1), ("A", "P", "S", "I"), (0, 2, 1)),
        ((1.2, 1, 1), ("R", "L", "A", "P"), (2, 1, 0)),
    ],
)
def test_a_volume_taken_in_slices_is_shown_in_those(sides, marks, order):
    volume = read_volume(nifti(head(), sides))
    gap, row, column = (sides[n] for n in order)
    assert volume.marks == marks
    assert volume.data.shape == tuple(SHAPE[n] for n in order)
    assert (volume.gap, *volume.spacing) == pytest.approx((gap, row, column))


def test_patients_sides_in_each_plane():
    """The bright corner, at the left front top, appears where the marks say."""
    coronal = read_volume(nifti(head(), (1, 5, 1)))
    assert coronal.data[-1, 0, -1] == head().max()  # front slice; top row; left side on the right
    sagittal = read_volume(nifti(head(), (5, 1, 1)))
    assert sagittal.data[0, 0, 0] == head().max()  # leftmost slice; top row; front on the left


def test_one_slice_is_seen_from_its_side():
    volume = read_volume(nifti(head()[:, 20:21]))
    assert len(volume) == 1
    assert volume.marks == ("R", "L", "S", "I")


def test_a_flat_file_is_one_slice():
    assert len(read_volume(nifti(head()[:, :, 3]))) == 1


def test_of_several_volumes_the_first_is_read_and_said_so():
    values = np.stack([head(), head() + 7, head() + 9], axis=-1)
    volume = read_volume(nifti(values))
    assert np.array_equal(volume.data, axial(head()))
    assert volume.notes == ("The file contains 3 volumes: the first is read.",)


def test_without_a_known_left_side_nothing_is_marked():
    image = nibabel.Nifti1Image(head(), None)
    volume = read_volume(image.to_bytes())
    assert volume.marks is None
    assert "patient's left" in volume.notes[0]


def test_the_middle_slice_is_the_scan():
    data = nifti(head())
    assert torch.equal(read_scan(data), read_volume(data).slice(16))


def test_levels_come_from_the_whole_volume_and_ignore_one_bright_vessel():
    values = head()
    values[5, 5, 5] = 30_000
    black, white = read_volume(nifti(values)).levels
    assert 0 < black < white <= head().max()


def test_a_blank_slice_is_reported_and_the_others_are_read():
    values = head()
    values[:, :, 0] = 0
    volume = read_volume(nifti(values))
    with pytest.raises(ScanError, match="black everywhere"):
        volume.slice(0)
    assert volume.slice(1).shape == (1, 224, 224)


@pytest.mark.parametrize("index", [-1, 33])
def test_there_are_no_slices_outside(index):
    with pytest.raises(IndexError, match=r"\[0, 32\]"):
        read_volume(nifti(head())).slice(index)
