"""Black and white of a picture come from what was measured, not from what fills its surroundings.

Each right value follows from the picture without fill.
"""

from __future__ import annotations

import gzip
import io
import tracemalloc
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_maker import EXPLICIT, IMPLICIT, build_data_set, encode_native, save_to_bytes
from PIL import Image
from refusals import get_refusal

from core.scan import Volume, read_volume, to_uint8
from core.scan.levels import FILL_NOTE, find_levels
from demo.phantom import draw_phantom

HEAD = np.rint(draw_phantom(3, tumour=True)[0].numpy() * 2400 + 300)  # values 300 to 2700
AROUND = np.hypot(*np.mgrid[-111.5:112, -111.5:112]) > 100  # a third of the picture
LOW, HIGH = np.percentile(HEAD[~AROUND], [1, 99])


def dicom(values: np.ndarray, syntax: str = EXPLICIT, **attributes: Any) -> Volume:
    return read_volume(encode_native(build_data_set(values, **attributes), values, syntax))


def fill(value: float, dtype: str = "int16") -> np.ndarray:
    return np.where(AROUND, value, HEAD).astype(dtype)


def show(values: np.ndarray, black: float, white: float) -> np.ndarray:
    return np.rint(((values - black) / (white - black)).clip(0, 1) * 255)


def check_fill_is_black(volume: Volume, *, is_inverted: bool = False) -> None:
    """Assert the levels of the head alone, and black where it was filled."""
    black, white = (HIGH, LOW) if is_inverted else (LOW, HIGH)
    assert volume.levels == (black, white)
    shown = to_uint8(volume.slice())[0]
    assert shown[AROUND].max() == 0
    expected = show(HEAD, black, white)[~AROUND]
    assert np.abs(shown[~AROUND] - expected).max() <= 1
    assert np.array_equal(volume.data[volume.middle][~AROUND], HEAD[~AROUND])
    assert FILL_NOTE in volume.notes


# --- DICOM ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("padding", [-32768, -2000, 1307, 32767])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_declared_padding_is_black(photometric, padding, syntax):
    attributes = {"PixelPaddingValue": padding, "PhotometricInterpretation": photometric}
    volume = dicom(fill(padding), syntax, **attributes)
    check_fill_is_black(volume, is_inverted=photometric == "MONOCHROME1")
    assert volume.notes == (FILL_NOTE,)


def test_the_padding_value_inside_the_head_is_tissue():
    value = int(np.median(HEAD[100:120, 100:120]))
    assert np.count_nonzero(value == HEAD) > 20
    volume = dicom(HEAD.astype(np.int16), PixelPaddingValue=value)
    assert np.array_equal(volume.data[0], HEAD)
    assert volume.levels == tuple(np.percentile(HEAD, [1, 99]))
    assert volume.notes == ()


def test_the_padding_value_in_noise_is_noise():
    """Signed phase: 0 lies amid its values and here and there at the edge."""
    phase = np.random.default_rng(0).integers(-60, 61, (224, 224)).astype(np.int16)
    assert (phase[0] == 0).any()
    volume = dicom(phase, PixelPaddingValue=0)
    assert np.array_equal(volume.data[0], phase)
    assert volume.notes == ()


def test_padding_is_followed_from_the_edge_around_corners():
    stored = (HEAD + 10).astype(np.int16)
    inside = np.zeros(HEAD.shape, dtype=bool)
    inside[:100, 60] = inside[100, 60:150] = inside[40:101, 150] = True  # from the top edge
    stored[inside] = 900
    stored[180:200, 100:120] = 900  # reaches no edge
    data = dicom(stored, PixelPaddingValue=900).data[0]
    assert data[inside].max() < stored[~inside].min() + 30
    assert (data[180:200, 100:120] == 900).all()


def test_padding_of_bright_low_values_is_black():
    volume = dicom(fill(0, "uint16"), PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    check_fill_is_black(volume, is_inverted=True)


def test_a_range_of_padding():
    stored = fill(-2000)
    stored[AROUND] += np.arange(AROUND.sum()) % 51
    check_fill_is_black(dicom(stored, PixelPaddingValue=-1950, PixelPaddingRangeLimit=-2000))


def test_padding_written_as_an_unsigned_number():
    ds = build_data_set(fill(-2000))
    ds.add_new("PixelPaddingValue", "US", 63536)
    check_fill_is_black(read_volume(encode_native(ds, fill(-2000))))


def test_padding_is_declared_before_rescaling():
    stored = fill(-30000)
    volume = dicom(stored, PixelPaddingValue=-30000, RescaleSlope="0.5", RescaleIntercept="-100")
    assert np.allclose(volume.levels, (LOW * 0.5 - 100, HIGH * 0.5 - 100))
    assert to_uint8(volume.slice())[0][AROUND].max() == 0


def test_padding_of_display_levels_leaves_them():
    levels = to_uint8(draw_phantom(3, tumour=True))[0]
    stored = np.where(AROUND, 255, levels.clip(0, 254)).astype(np.uint8)
    volume = dicom(stored, PixelPaddingValue=255)
    assert volume.levels == (0, 255)
    shown = to_uint8(volume.slice())[0]
    assert shown[AROUND].max() == 0
    assert np.array_equal(shown[~AROUND], stored[~AROUND])


@pytest.mark.parametrize("frames", [1, 3])
def test_no_number_is_black(frames):
    values = np.stack([np.where(AROUND, np.nan, HEAD)] * frames).astype(np.float32)
    ds = build_data_set(values, NumberOfFrames=frames)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    ds.FloatPixelData = values.tobytes()
    check_fill_is_black(read_volume(save_to_bytes(ds, EXPLICIT)))


# --- fill that nothing declares ------------------------------------------------------------------


@pytest.mark.parametrize("value", [-32768, -9000, -2000, 5000, 9000, 32767])
def test_one_value_far_from_all_others_is_fill(value):
    check_fill_is_black(dicom(fill(value)))


def test_zero_far_below_all_others_is_fill():
    """Signed values, stored with an offset."""
    stored = np.where(AROUND, 0, HEAD + 32768).astype(np.uint16)
    volume = dicom(stored)
    assert volume.levels == (LOW + 32768, HIGH + 32768)
    assert volume.data.min() == HEAD[~AROUND].min() + 32768


def test_a_frame_of_display_levels_is_black():
    levels = np.rint(to_uint8(draw_phantom(3, tumour=True))[0] * 0.6)
    for photometric, ends in (("MONOCHROME2", (0, 255)), ("MONOCHROME1", (255, 0))):
        head = abs(levels - ends[0])
        stored = np.where(AROUND, ends[1], head).astype(np.uint8)
        volume = dicom(stored, PhotometricInterpretation=photometric)
        assert volume.levels == ends
        shown = to_uint8(volume.slice())[0]
        assert shown[AROUND].max() == 0
        assert np.array_equal(shown[~AROUND], levels[~AROUND])
        assert volume.notes == (FILL_NOTE,)


def test_display_levels_that_reach_white_are_no_fill():
    levels = to_uint8(draw_phantom(3, tumour=True))[0]
    stored = np.where(AROUND, 255, levels.clip(0, 240)).astype(np.uint8)
    volume = dicom(stored)
    assert np.array_equal(to_uint8(volume.slice())[0], stored)
    assert volume.notes == ()


def test_fill_takes_little_memory():
    data = np.tile(np.where(AROUND, -32768, HEAD).astype(np.float32), (300, 1, 1))
    padding = np.tile(np.float32([-32768, -32768]), (300, 1))
    tracemalloc.start()
    try:
        notes = find_levels(data, padding=padding)[1]
        assert tracemalloc.get_traced_memory()[1] < 0.4 * data.nbytes
    finally:
        tracemalloc.stop()
    assert notes == [FILL_NOTE]


def nifti(values: np.ndarray) -> bytes:
    turned = np.repeat(values.T[::-1, ::-1, None], 5, axis=2)
    return bytes(nibabel.Nifti1Image(turned, np.diag([1, 1, 5, 1])).to_bytes())


@pytest.mark.parametrize(("value", "dtype"), [(-32768, "int16"), (np.nan, "float32")])
def test_fill_of_a_volume(value, dtype):
    check_fill_is_black(read_volume(gzip.compress(nifti(fill(value, dtype)))))


@pytest.mark.parametrize(
    ("value", "dtype", "file_format"),
    [(np.nan, "float32", "TIFF"), (-1e30, "float32", "TIFF"), (65535, "uint16", "PNG")],
)
def test_fill_of_a_picture(value, dtype, file_format):
    buffer = io.BytesIO()
    Image.fromarray(fill(value, dtype)).save(buffer, file_format)
    check_fill_is_black(read_volume(buffer.getvalue()))


@pytest.mark.parametrize(
    ("low", "high", "white"), [(0.3, 1, 1), (1200, 4000, 4095), (100, 250, 255)]
)
def test_no_numbers_around_a_picture_that_fills_a_usual_range_are_black(low, high, white):
    head = low + (HEAD - HEAD.min()) / np.ptp(HEAD) * (high - low)
    buffer = io.BytesIO()
    Image.fromarray(np.where(AROUND, np.nan, head).astype("f4")).save(buffer, "TIFF")
    volume = read_volume(buffer.getvalue())
    assert volume.levels == (0, white)
    shown = to_uint8(volume.slice())[0]
    assert shown[AROUND].max() == 0
    assert np.abs(shown - show(head, 0, white))[~AROUND].max() <= 1


def test_a_bright_picture_on_black_keeps_the_range_that_it_fills():
    head = 62_300 + HEAD - HEAD.min()
    buffer = io.BytesIO()
    Image.fromarray(np.where(AROUND, 0, head).astype("u2")).save(buffer, "PNG")
    volume = read_volume(buffer.getvalue())
    assert volume.levels == (0, 65535)
    expected = np.where(AROUND, 0, show(head, 0, 65535))
    assert np.abs(to_uint8(volume.slice())[0] - expected).max() <= 1


def test_a_volume_of_no_numbers_is_refused():
    data = nifti(np.full((40, 40), np.nan, dtype=np.float32))
    assert "not numbers" in get_refusal(read_volume, data)


def test_infinity_is_no_fill():
    data = nifti(fill(-np.inf, "float32"))
    assert "not numbers" in get_refusal(read_volume, data)


# --- what stays as it is -------------------------------------------------------------------------

NOISE = np.random.default_rng(0).normal(0, 20, HEAD.shape)
USUAL: dict[str, np.ndarray] = {
    "air": HEAD + NOISE - 300,
    "a head without its surroundings": np.where(AROUND, 0, HEAD * 0.4 + 700),
    "three levels": np.where(AROUND, 0, np.where(HEAD > 1000, 1000, 800)),
    "two levels": np.where(AROUND, 0, 1000),
    "almost all black": np.where(np.hypot(*np.mgrid[-111.5:112, -111.5:112]) < 8, HEAD, 0),
    "CT": np.where(AROUND, -1024, HEAD + NOISE - 1000),
    "bright vessels": np.where(np.arange(224) < 3, 3 * HEAD + 20000, HEAD + NOISE),
    "one number far away": np.where(np.arange(224**2).reshape(224, 224) < 9, -30000, HEAD),
    "a bright square": np.where(np.hypot(*np.mgrid[-111.5:112, -111.5:112]) < 40, 9000, HEAD),
    "normalised": np.where(AROUND, -3, HEAD / 400 - 3),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_pictures_keep_their_levels(name):
    data = np.float32(USUAL[name])[None]
    before = data.copy()
    low, high = np.percentile(data, [1, 99])
    levels, notes = find_levels(data)
    assert levels == ((low, high) if low < high else (data.min(), data.max()))
    assert notes == []
    assert np.array_equal(data, before)


def test_a_value_of_one_slice_is_no_fill():
    data = np.stack([np.full((40, 40), n, dtype=np.float32) for n in (1, 2, 10)])
    assert find_levels(data) == ((1, 10), [])


@pytest.mark.parametrize("value", [0, 1, -5000, 9000])
def test_blank_slices_are_no_fill_of_the_others(value):
    head = HEAD.astype(np.float32)
    head[100, 100] = value  # a dead pixel
    data = np.stack([np.full_like(head, value)] * 4 + [head, head])
    before = data.copy()
    levels, notes = find_levels(data)
    assert notes == []
    assert levels == tuple(np.percentile(before, [1, 99]))
    assert np.array_equal(data, before)


@pytest.mark.parametrize("padding", [0, 250, 310, 5000])
def test_padding_that_is_air_or_not_there_changes_nothing(padding):
    stored = np.where(AROUND, min(padding, 310), HEAD + 10).astype(np.uint16)
    with_it, without = dicom(stored, PixelPaddingValue=padding), dicom(stored)
    assert with_it.levels == without.levels
    assert with_it.notes == ()
    assert np.array_equal(with_it.data, stored[None])
