"""Slices without positions lie in the best order that is known; damaged ones are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_maker import (
    EXPLICIT,
    LOSSLESS,
    build_data_set,
    encode_compressed,
    encode_lossless_jpeg,
    encode_native,
    save_to_bytes,
)
from pydicom.dataset import Dataset, FileMetaDataset
from refusals import get_refusal
from series_maker import AXIAL, build_slice, picture, read_order, zip_files

from core.scan import read_volume


def build_unplaced(n: int, **attributes: Any) -> bytes:
    return encode_native(build_data_set(picture(n), **attributes), picture(n))


SEVERAL = "At some positions lie several pictures: the first of each is read."
NAMES = [f"IM{n}.dcm" for n in range(1, 13)]
UNPLACED = "The places of some slices are unknown or the same: they are in the order of their "


@pytest.fixture(params=["zip", "folder", "list", "texts"])
def read_named(request, tmp_path: Path):
    """Return a function that reads files by their names: from a zip, a folder, or a list."""

    def read(files: dict[str, bytes]):
        shuffled = dict(sorted(files.items()))  # 1, 10, 11, 12, 2
        if request.param == "zip":
            return read_volume(zip_files(*shuffled.values(), names=list(shuffled)))
        for name, data in shuffled.items():
            (tmp_path / name).write_bytes(data)
        paths = [tmp_path / name for name in shuffled]
        return read_volume(
            {"folder": tmp_path, "list": paths, "texts": [*map(str, paths)]}[request.param]
        )

    return read


def test_without_any_place_the_natural_order_of_names_counts(read_named):
    volume = read_named({name: build_unplaced(n) for n, name in enumerate(NAMES)})
    assert read_order(volume) == list(range(12))
    assert volume.notes == (UNPLACED + "file names, or as given.",)
    assert (volume.gap, volume.marks) == (None, None)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["a2b10", "a2b9", "a10b1"], [1, 0, 2]),
        (["IM002", "IM10", "IM1"], [2, 0, 1]),
        (["im3", "IM2", "Im1"], [2, 1, 0]),
        (["9" * 5000, "1", "x"], [1, 0, 2]),
    ],
)
def test_names_are_sorted_as_people_do(names, first):
    files = [build_unplaced(n) for n in range(3)]
    assert read_order(read_volume(zip_files(*files, names=names))) == first


def test_bytes_without_names_keep_their_order():
    assert read_order(read_volume([build_unplaced(n) for n in (3, 1, 2)])) == [3, 1, 2]


def test_slice_locations_come_before_numbers_and_names():
    files = [
        build_unplaced(n, SliceLocation=str(4 * n - 7), InstanceNumber=str(9 - n))
        for n in (2, 0, 1)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2]
    assert volume.gap == 4
    assert volume.notes == (UNPLACED + "slice locations.",)
    assert volume.doubts == ()


def test_the_location_of_a_file_is_not_that_of_each_frame():
    files = []
    for n in (0, 1):
        stored = np.stack([picture(5 * n + k) for k in range(5)])
        ds = build_data_set(stored, NumberOfFrames=5, SliceLocation=str(9 - n))
        files.append(encode_native(ds, stored))
    volume = read_volume(files)
    assert read_order(volume) == list(range(10))
    assert volume.notes == (UNPLACED + "file names, or as given.",)


NOISE = [1e-4, -2e-4, 0, 3e-4, -1e-4, 2e-4]


def test_of_repeats_at_almost_the_same_places_one_is_read():
    """The first by number, though the second lies lower at some places."""
    files = [
        build_slice(
            10 * k + n,
            InstanceNumber=str(6 * k + n),
            ImagePositionPatient=[0, 0, 5 * n + (k == 0) * NOISE[n]],
        )
        for k in (1, 0)
        for n in range(6)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2, 3, 4, 5]
    assert volume.notes == (SEVERAL,)


def test_a_chain_of_close_places_is_not_one_place():
    files = [build_slice(n, ImagePositionPatient=[0, 0, 0.006 * n]) for n in range(5)]
    assert read_order(read_volume(files)) == [0, 2, 4]


def test_one_slice_without_position_is_said():
    place = {5: None}
    files = [
        build_slice(n, InstanceNumber=str(n), ImagePositionPatient=place.get(n, [0, 0, 5 * n]))
        for n in range(6)
    ]
    volume = read_volume(files)
    assert read_order(volume) == list(range(6))
    assert volume.notes == volume.doubts == (UNPLACED + "numbers.",)


@pytest.mark.parametrize(
    ("numbers", "order", "by"),
    [
        (["3", "1", "2"], [1, 2, 0], "numbers."),
        (["3", "1", "1"], [0, 1, 2], "file names, or as given."),
        (["3", "", "2"], [0, 1, 2], "file names, or as given."),
    ],
    ids=["complete", "not distinct", "not complete"],
)
@pytest.mark.parametrize("location", [{}, {"SliceLocation": "5"}], ids=["none", "one for all"])
def test_numbers_come_before_names_if_they_are_distinct_and_complete(numbers, order, by, location):
    files = [build_unplaced(n, InstanceNumber=x, **location) for n, x in enumerate(numbers)]
    volume = read_volume(files)
    assert read_order(volume) == order
    assert volume.notes == (UNPLACED + by,)


def test_positions_that_are_all_the_same_are_no_order():
    files = [
        build_slice(n, ImagePositionPatient=[0, 0, 0], InstanceNumber=str(n)) for n in (2, 0, 1)
    ]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes == (UNPLACED + "numbers.",)


def test_positions_without_directions_are_no_order():
    files = [build_slice(n, ImageOrientationPatient=None, InstanceNumber=str(n)) for n in (2, 0, 1)]
    volume = read_volume(files)
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes == (UNPLACED + "numbers.",)


def test_frames_of_one_file_need_no_order():
    stored = np.stack([picture(n) for n in range(3)])
    volume = read_volume(encode_native(build_data_set(stored, NumberOfFrames=3), stored))
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes == ()


# --- damage --------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[:-900]


def build_damaged(n: int) -> bytes:
    """Return a slice whose compressed pixels end too early."""
    whole = encode_lossless_jpeg(picture(n), 16)
    place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-100, -90, 5 * n - 30]}
    return encode_compressed(build_data_set(picture(n), **place), [whole[:200]], LOSSLESS)


@pytest.mark.parametrize("damage", [lambda n: cut(build_slice(n)), build_damaged])
def test_a_damaged_slice_is_left_out_and_named(damage):
    files = [damage(n) if n == 4 else build_slice(n) for n in range(12)]
    volume = read_volume(files[::-1])
    assert read_order(volume) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    for n, values in zip(read_order(volume), volume.data, strict=True):
        assert np.array_equal(values, picture(n))
    assert volume.gap == 5
    assert volume.notes == (
        "Of 12 slices some are damaged and left out: number 5, counted before the others moved up.",
    )


def test_values_that_are_not_numbers_leave_out_their_slice():
    files = [build_slice(n, RescaleSlope="1e300" if n == 1 else "1") for n in range(3)]
    volume = read_volume(files)
    assert read_order(volume) == [0, 2]
    assert volume.notes == (
        "Of 3 slices some are damaged and left out: number 2, counted before the others moved up.",
    )


def test_half_of_the_slices_may_be_damaged_and_no_more():
    files = [cut(build_slice(n)) if n % 2 else build_slice(n) for n in range(6)]
    volume = read_volume(files)
    assert read_order(volume) == [0, 2, 4]
    assert volume.notes == (
        "Of 6 slices some are damaged and left out: number 2, 4, 6, "
        "counted before the others moved up.",
    )
    message = get_refusal(read_volume, [*files[:5], *map(cut, map(build_slice, (6, 7)))])
    assert message == "4 of 7 slices are damaged: send the series again."


def test_many_damaged_slices_are_counted():
    files = [cut(build_slice(n)) if n < 13 else build_slice(n) for n in range(30)]
    assert "number 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more, counted" in read_volume(files).notes[0]


def test_a_single_damaged_file_stays_an_error():
    assert "incomplete" in get_refusal(read_volume, cut(build_slice(0)))
    assert "Slice 1 of 1 is damaged" in get_refusal(read_volume, build_damaged(0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (build_slice(9)[:300], "damaged or of an unknown kind"),
        (build_slice(9, PhotometricInterpretation="HSV"), "of a kind that cannot be read here"),
        (build_slice(9, Rows=None), "of a kind that cannot be read here"),
    ],
    ids=["empty", "cut", "HSV", "no rows"],
)
def test_files_without_a_readable_header_are_counted(data, reason):
    files = [build_slice(n) for n in range(4)]
    for source in ([*files, data], zip_files(*files, data)):
        volume = read_volume(source)
        assert read_order(volume) == [0, 1, 2, 3]
        assert volume.notes == (f"Of 5 files some are left out: 1 {reason}.",)


def build_directory() -> bytes:
    """Return a DICOMDIR: a list of files, without SOP class and picture in its data set."""
    ds = Dataset()
    ds.FileSetID, ds.DirectoryRecordSequence = "DISC", []
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def test_a_dicomdir_and_a_report_are_no_damage():
    report = build_data_set(picture(0), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    volume = read_volume(
        [build_directory(), build_slice(0), build_slice(1), save_to_bytes(report, EXPLICIT)]
    )
    assert read_order(volume) == [0, 1]
    assert volume.notes == ()
    assert "DICOMDIR" in get_refusal(read_volume, build_directory())


def test_a_dicomdir_does_not_hide_why_the_slices_are_refused():
    colours = [build_slice(n, PhotometricInterpretation="HSV") for n in range(2)]
    message = get_refusal(read_volume, [build_directory(), *colours])
    assert "neither grey values nor usual colours" in message


def test_a_zip_entry_of_a_wrong_checksum_is_damaged():
    data = zip_files(*(build_slice(n) for n in range(3)))
    start = data.index(b"PK\1\2") + 16
    data = data[:start] + bytes(4) + data[start + 4 :]
    volume = read_volume(data)
    assert read_order(volume) == [1, 2]
    assert volume.notes == ("Of 3 files some are left out: 1 damaged or of an unknown kind.",)
