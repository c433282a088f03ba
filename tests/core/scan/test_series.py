"""Loose slices become one series: the largest, in anatomical order; the notes say the rest."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_maker import (
    build_data_set,
    encode_native,
    save_to_bytes,
)
from pydicom.dataset import Dataset
from series_maker import AXIAL, build_slice, picture, read_order, zip_files

from core.scan import ScanError, read_volume, to_png
from core.scan.errors import MB
from demo.phantom import draw_phantom


def set_version(version: int) -> bytes:
    """Return a zip that requires a later version of the format than exists."""
    data = bytearray(zip_files(build_slice(0)))
    data[data.index(b"PK\x01\x02") + 6] = version
    return bytes(data)


def test_slices_lie_in_order_of_position_and_not_of_name_or_number():
    files = [build_slice(n, InstanceNumber=str(99 - n)) for n in (3, 0, 4, 1, 2)]
    volume = read_volume(zip_files(*files))
    assert read_order(volume) == [0, 1, 2, 3, 4]
    assert np.array_equal(volume.data[3], picture(3))
    assert volume.gap == 5
    assert volume.notes == ()


def test_position_counts_along_the_normal():
    """Sagittal slices lie from right to left; their height does not matter."""
    files = [
        build_slice(
            n,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[-4 * n, 0, 50 - 7 * (n % 2)],
        )
        for n in (1, 0, 2)
    ]
    volume = read_volume(zip_files(*files))
    assert read_order(volume) == [0, 1, 2]
    assert volume.marks == ("A", "P", "S", "I")
    assert volume.gap == 4


def test_without_positions_the_instance_number_counts():
    files = [
        encode_native(build_data_set(picture(n), InstanceNumber=str(n)), picture(n))
        for n in (2, 10, 1)
    ]
    assert read_order(read_volume(zip_files(*files))) == [1, 2, 10]


def test_a_folder_and_a_list_are_as_good_as_a_zip(tmp_path: Path):
    files = [build_slice(n) for n in range(3)]
    (tmp_path / "deep").mkdir()
    for n, data in enumerate(files):
        (tmp_path / "deep" / f"{n}.dcm").write_bytes(data)
    paths = sorted((tmp_path / "deep").iterdir())
    for source in (zip_files(*files), tmp_path, files, paths, [str(p) for p in paths]):
        assert read_order(read_volume(source)) == [0, 1, 2]


def test_one_file_in_a_zip_is_that_file():
    volume = read_volume(zip_files(build_slice(4)))
    assert np.array_equal(volume.data, read_volume(build_slice(4)).data)


@pytest.mark.parametrize(
    "attributes",
    [
        {"SeriesInstanceUID": "1.2.99"},
        {"SeriesInstanceUID": "1.2.99", "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    ],
)
def test_of_a_mixture_the_largest_series_is_read_and_said_so(attributes):
    files = [build_slice(n) for n in range(4)] + [build_slice(n, **attributes) for n in (7, 8)]
    volume = read_volume(zip_files(*files[::-1]))
    assert read_order(volume) == [0, 1, 2, 3]
    assert volume.notes == ("There are 2 series: the largest, 4 slices, is read.",)


def test_a_series_has_one_size():
    large = np.tile(picture(9), (2, 2))
    files = [build_slice(0), build_slice(1), encode_native(build_data_set(large), large)]
    assert read_order(read_volume(zip_files(*files))) == [0, 1]


def test_of_several_pictures_at_a_place_the_first_is_read_and_said_so():
    files = [
        build_slice(n, InstanceNumber=str(n + 1), ImagePositionPatient=[0, 0, 5 * (n % 3)])
        for n in range(6)
    ]
    volume = read_volume(zip_files(*files))
    assert read_order(volume) == [0, 1, 2]
    assert volume.notes == ("At some positions lie several pictures: the first of each is read.",)


def test_a_note_on_any_slice_is_said_once():
    files = [build_slice(n, RescaleSlope="2") for n in range(6)]
    for n in (0, 4):
        files[n] = build_slice(n, RescaleSlope="nan")
    volume = read_volume(files)
    assert np.array_equal(volume.data[3], 2.0 * picture(3))
    assert np.array_equal(volume.data[4], picture(4))
    assert (
        volume.notes
        == volume.doubts
        == ("The scale of the values is no number: brightness may be wrong.",)
    )


def test_a_missing_slice_is_noticed():
    volume = read_volume(zip_files(*(build_slice(n) for n in (0, 1, 2, 4, 5))))
    assert "some may be missing" in volume.notes[0]


def test_other_files_do_not_disturb():
    report = build_data_set(picture(0))  # and no pixels
    files = [
        b"Read me first.",
        to_png(draw_phantom(0, tumour=False)),
        build_slice(0),
        save_to_bytes(report, "1.2.840.10008.1.2.1"),
        build_slice(1),
    ]
    volume = read_volume(zip_files(*files))
    assert read_order(volume) == [0, 1]
    assert volume.notes == ("Of 5 files some are left out: 1 damaged or of an unknown kind.",)


def test_frames_with_places_of_their_own_are_put_in_order():
    stored = np.stack([picture(n) for n in (2, 0, 1)])
    ds = build_data_set(stored, NumberOfFrames=3)
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness = ["0.5", "0.5"], "4"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    own = []
    for n in (2, 0, 1):
        group, place, units, window = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 3 * n]
        units.RescaleSlope, units.RescaleIntercept = "2", str(n)
        window.WindowCenter, window.WindowWidth = str(100 * n), "50"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [units]
        group.FrameVOILUTSequence = [window]
        own.append(group)
    ds.PerFrameFunctionalGroupsSequence = own
    volume = read_volume(encode_native(ds, stored))
    for n in range(3):
        assert np.array_equal(volume.data[n], picture(n) * 2.0 + n)
    assert (volume.gap, volume.spacing) == (3, (0.5, 0.5))
    assert volume.windows[0] == ("file 1", 100, 50)
    assert volume.marks == ("R", "L", "A", "P")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (zip_files(), "no DICOM slices"),
        (zip_files(b"text", to_png(draw_phantom(0, tumour=False))), "no DICOM slices"),
        (zip_files(zip_files(build_slice(0))), "unpack nested zips"),
        (zip_files(build_slice(0), names=["../../etc/cron.d/slice"]), "outside it"),
        (zip_files(build_slice(0), names=["/etc/slice"]), "outside it"),
        (zip_files(build_slice(0), names=["C:\\slice"]), "outside it"),
        (zip_files(build_slice(0), names=["a\\..\\..\\slice"]), "outside it"),
        (zip_files(build_slice(0))[:-40], "zip is damaged"),
        (zip_files(build_slice(0))[:100], "zip is damaged"),
        (set_version(99), "zip is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "zip",  # its bytes hold the time
)
def test_bad_zips(data, sentence):
    with pytest.raises(ScanError, match=sentence) as caught:
        read_volume(data)
    assert str(caught.value).endswith(".")


def test_an_empty_folder(tmp_path):
    with pytest.raises(ScanError, match="no DICOM slices"):
        read_volume(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("slice", build_slice(0))
    with pytest.raises(ScanError, match="standard zip"):
        read_volume(buffer.getvalue())


def test_a_locked_zip():
    data = bytearray(zip_files(build_slice(0)))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ScanError, match="password"):
        read_volume(bytes(data))


def test_too_many_files():
    data = zip_files(*[b""] * 4001)
    with pytest.raises(ScanError, match="more than 4,000 files"):
        read_volume(data)


@pytest.mark.parametrize(
    ("count", "size", "sentence"),
    [(1, 2**31, "larger than 250 MB"), (5, 240 * MB, "more than 1 GB")],
)
def test_a_bomb_that_says_so(count, size, sentence):
    data = bytearray(zip_files(*map(build_slice, range(count))))
    place = 0
    for _ in range(count):
        place = data.index(b"PK\x01\x02", place) + 24
        data[place : place + 4] = size.to_bytes(4, "little")
    with pytest.raises(ScanError, match=sentence):
        read_volume(bytes(data))
