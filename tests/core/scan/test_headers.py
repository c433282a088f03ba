"""Poor, unusual and large headers: read as other DICOM readers do, with a note, or named."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from dicom_maker import (
    EXPLICIT,
    IMPLICIT,
    LOSSLESS,
    build_data_set,
    encode_compressed,
    encode_lossless_jpeg,
    encode_native,
    save_to_bytes,
    strip_preamble,
)
from PIL import Image
from pydicom.dataset import Dataset
from refusals import get_refusal
from series_maker import build_mosaic

from core.scan import read_volume, to_uint8
from core.scan.errors import MB
from demo.phantom import draw_phantom

PICTURE = np.add.outer(np.arange(36) * 50, np.arange(44) * 30).astype(np.uint16)


def build(without: str = "", stored: np.ndarray = PICTURE, **attributes: Any) -> bytes:
    """Return a file of `stored`, 12 bits, without the attribute named."""
    ds = build_data_set(stored, 8 * stored.dtype.itemsize - 4, **attributes)
    if without:
        delattr(ds, without)
    return encode_native(ds, stored)


# --- poor headers --------------------------------------------------------------------------------

ASSUMED = "The header is incomplete or misspelt; assumed: "


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (build("PhotometricInterpretation"), ASSUMED + "grey values, high is bright."),
        (
            build(PhotometricInterpretation="monochrome2"),
            ASSUMED + "grey values, high is bright.",
        ),
        (build("SamplesPerPixel"), ASSUMED + "one value a pixel."),
        (build("BitsStored"), ASSUMED + "16 bits a value."),
        (
            build("SamplesPerPixel", PhotometricInterpretation="Monochrome 2"),
            ASSUMED + "grey values, high is bright, one value a pixel.",
        ),
        (
            build(ModalityLUTSequence=[Dataset()]),
            "The header's table for converting values is damaged and is left out.",
        ),
        (
            build(RescaleSlope="12345678").replace(b"12345678", b"unknown "),
            "The scale of the values is no number: brightness may be wrong.",
        ),
    ],
    ids=[
        "no photometric",
        "lower case",
        "no samples",
        "no bits stored",
        "two at once",
        "empty table",
        "slope",
    ],
)
def test_a_poor_header_does_not_hide_a_good_picture(data, note):
    volume = read_volume(data)
    assert np.array_equal(volume.data[0], PICTURE)
    assert not volume.is_inverted
    assert volume.notes == (note,)


def test_a_lower_case_inverted_picture_is_inverted():
    volume = read_volume(build(PhotometricInterpretation="monochrome1"))
    assert volume.notes == (ASSUMED + "grey values, low is bright.",)
    assert volume.is_inverted
    assert np.array_equal(volume.data[0], PICTURE)


def test_colours_without_a_photometric_are_rgb():
    grey = (PICTURE >> 4).astype(np.uint8)
    stored = np.stack([grey, grey, grey], axis=-1)
    ds = build_data_set(stored)
    del ds.PhotometricInterpretation
    volume = read_volume(encode_native(ds, stored))
    assert np.array_equal(volume.data[0], grey)
    assert volume.notes[0] == ASSUMED + "colours."


@pytest.mark.parametrize(
    ("keyword", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
def test_real_numbers_lack_no_bits(keyword, dtype):
    values = PICTURE.astype(dtype)
    ds = build_data_set(values)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    setattr(ds, keyword, values.tobytes())
    volume = read_volume(save_to_bytes(ds, EXPLICIT))
    assert np.array_equal(volume.data[0], PICTURE)
    assert volume.notes == ()


def test_a_slope_of_nonsense_leaves_the_intercept():
    volume = read_volume(build(RescaleSlope="nan", RescaleIntercept="-5"))
    assert np.array_equal(volume.data[0], PICTURE - 5.0)


@pytest.mark.parametrize(
    ("without", "words"),
    [("Rows", "rows"), ("Columns", "columns"), ("BitsAllocated", "bits of a pixel")],
)
def test_the_sentence_says_what_is_missing(without, words):
    assert get_refusal(read_volume, build(without)) == (
        f"The DICOM header does not say the number of {words}: export the picture again."
    )


# --- spacing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "spacing", "is_in_mm"),
    [
        ({"PixelSpacing": ["2", "1"]}, (2, 1), True),
        ({"PixelAspectRatio": ["2", "1"]}, (2, 1), False),
        ({"NominalScannedPixelSpacing": ["0.4", "0.2"]}, (0.4, 0.2), False),
        ({"ImagerPixelSpacing": ["0.4", "0.2"]}, (0.4, 0.2), False),
        ({"PixelSpacing": ["2", "1"], "PixelAspectRatio": ["1", "1"]}, (2, 1), True),
        ({"PixelSpacing": ["0", "0"], "PixelAspectRatio": ["2", "1"]}, (2, 1), False),
        ({"PixelAspectRatio": ["2", "0"]}, None, True),
    ],
    ids=str,
)
def test_proportions_of_pixels(attributes, spacing, is_in_mm):
    round_head = Image.fromarray(to_uint8(draw_phantom(3, tumour=False))[0])
    squashed = np.asarray(round_head.resize((224, 112)))
    volume = read_volume(encode_native(build_data_set(squashed, **attributes), squashed))
    assert (volume.spacing, volume.is_in_mm) == (spacing, is_in_mm)
    assert volume.notes == (
        () if is_in_mm else ("The file gives the proportions of its pixels, but not their size.",)
    )
    if spacing:
        assert (volume.slice() - draw_phantom(3, tumour=False)).abs().mean() < 0.02


# --- mosaics, and frames that are not counted ----------------------------------------------------


TILES = np.stack([PICTURE + n for n in range(7)])
AXIAL = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 40]}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_mosaic_is_read_slice_by_slice(syntax):
    ds, mosaic = build_mosaic(TILES, 3, SpacingBetweenSlices="4", PixelSpacing=["2", "2"], **AXIAL)
    volume = read_volume(encode_native(ds, mosaic, syntax))
    assert np.array_equal(volume.data, TILES)
    assert (volume.gap, volume.spacing, volume.marks) == (4, (2, 2), ("R", "L", "A", "P"))
    assert volume.notes == ("Each picture is a mosaic of 7 slices: either end may be the first.",)


def build_csa(count: int) -> bytes:
    """Return Siemens' own header of one entry, as files without the standard private block do."""
    entry = struct.pack("<64si4s3i", b"NumberOfImagesInMosaic", 1, b"US", 6, 1, 77)
    value = str(count).encode().ljust(4, b"\0")
    return (
        b"SV10\4\3\2\1" + struct.pack("<2I", 1, 77) + entry + struct.pack("<4i", *[4] * 4) + value
    )


def test_the_number_of_tiles_may_stand_in_siemens_own_header():
    ds, mosaic = build_mosaic(TILES, 3, creator="")
    ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", build_csa(7))
    assert np.array_equal(read_volume(encode_native(ds, mosaic)).data, TILES)
    ds[0x0029, 0x1010].value = b"SV10" + b"\xff" * 96
    assert "shown as one" in read_volume(encode_native(ds, mosaic)).notes[0]


@pytest.mark.parametrize(
    "more",
    [
        {"SliceThickness": "4"},
        {},
        {"SliceLocation": "3", "ImagePositionPatient": None},
    ],
    ids=["thickness", "no thickness", "location alone"],
)
@pytest.mark.parametrize("drift", [0, -0.05])
def test_of_mosaics_at_many_times_the_first_is_read(more, drift):
    """A mosaic is a volume: the head's drift does not mix the times."""
    files = []
    for n in range(3):
        place = AXIAL | {"ImagePositionPatient": [0, 0, 40 + drift * n]} | more
        ds, mosaic = build_mosaic(TILES + 50 * n, 3, InstanceNumber=str(n), **place)
        files.append(encode_native(ds, mosaic))
    volume = read_volume(files[::-1])
    assert np.array_equal(volume.data, TILES)
    assert volume.gap == (4 if "SliceThickness" in more else None)
    assert volume.notes[0] == "Of 3 mosaics the first is read."
    assert volume.doubts == ()


def test_mosaics_of_different_numbers_are_not_mixed():
    files = []
    for count in (7, 9):
        ds, mosaic = build_mosaic(np.stack([PICTURE + n for n in range(count)]), 3, **AXIAL)
        files.append(encode_native(ds, mosaic))
    volume = read_volume(files)
    assert np.array_equal(volume.data, [PICTURE + n for n in range(9)])
    assert "9 axial; left out: 7 axial." in volume.notes[0]


def test_a_mosaic_of_an_unknown_number_is_named():
    ds, mosaic = build_mosaic(TILES, 3, creator="")
    volume = read_volume(encode_native(ds, mosaic))
    assert np.array_equal(volume.data[0], mosaic)
    assert volume.notes == ("The picture is a mosaic of slices, shown as one: export them singly.",)


@pytest.mark.parametrize("count", [0, 1, 17, 65535])
def test_a_mosaic_of_a_wrong_number_is_named(count):
    ds, mosaic = build_mosaic(TILES, 3)
    ds[0x0019, 0x100A].value = count  # 17 need rows of 5, which do not divide 108
    volume = read_volume(encode_native(ds, mosaic))
    assert np.array_equal(volume.data[0], mosaic)
    assert "mosaic" in volume.notes[0]


def test_frames_without_their_number_are_read_as_far_as_the_data_hold():
    stored = np.stack([PICTURE + n for n in range(12)])
    volume = read_volume(encode_native(build_data_set(stored, 12), stored))
    assert np.array_equal(volume.data, stored)
    assert volume.notes == ("The header does not say how many slices there are: the data hold 12.",)


def test_compressed_frames_without_their_number_are_counted_by_their_offsets():
    stored = np.stack([PICTURE + n for n in range(3)])
    frames = [encode_lossless_jpeg(one, 12) for one in stored]
    volume = read_volume(encode_compressed(build_data_set(stored, 12), frames, LOSSLESS))
    assert np.array_equal(volume.data, stored)
    assert "the data hold 3." in volume.notes[0]


def test_frames_of_an_odd_number_of_bytes_are_padded():
    stored = np.stack([(PICTURE[:35, :43] >> 4).astype(np.uint8) + n for n in range(3)])
    assert np.array_equal(read_volume(encode_native(build_data_set(stored), stored)).data, stored)


@pytest.mark.parametrize(("number", "more"), [("1", 36 * 44 * 2), ("", 100)])
def test_data_beyond_the_frames_are_no_frames(number, more):
    """The declared number counts; data that fill no frame are padding."""
    ds = build_data_set(PICTURE, 12, NumberOfFrames=number)
    volume = read_volume(encode_native(ds, np.append(PICTURE, np.zeros(more // 2, np.uint16))))
    assert np.array_equal(volume.data, PICTURE[None])
    assert volume.notes == ()


# --- where the data set begins, and what precedes the pixels -------------------------------------


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("group", [8, 0x10])
def test_a_data_set_may_begin_at_group_8_or_10(group, implicit):
    ds = build_data_set(PICTURE, 12)
    for element in [element for element in ds if element.tag.group < group]:
        del ds[element.tag]
    data = strip_preamble(ds, PICTURE, implicit)
    assert data[:2] == struct.pack("<H", group)
    assert np.array_equal(read_volume(data).data[0], PICTURE)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_private_data_before_the_pixels_are_passed_over(syntax):
    ds = build_data_set(PICTURE, 12)
    ds.private_block(0x0029, "MAKER", create=True).add_new(1, "OB", bytes(17 * MB))
    ds.private_block(0x0031, "MAKER", create=True).add_new(1, "OB", bytes(5 * MB))
    volume = read_volume(encode_native(ds, PICTURE, syntax))
    assert np.array_equal(volume.data[0], PICTURE)
    assert volume.notes == ()


def test_frames_may_follow_large_private_data_compressed():
    ds = build_data_set(PICTURE, 12)
    ds.private_block(0x0029, "MAKER", create=True).add_new(1, "OB", bytes(17 * MB))
    data = encode_compressed(ds, [encode_lossless_jpeg(PICTURE, 12)], LOSSLESS)
    assert np.array_equal(read_volume(data).data[0], PICTURE)
