"""DICOM of every photometric, bit depth and compression opens as the values it was made from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from dicom_maker import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    EXTENDED,
    FOREIGN_LOSSLESS,
    FOREIGN_SIGNED_2000,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    LOSSLESS,
    LOSSLESS_2000,
    LS,
    NEAR_LS,
    PROCESS_14,
    RLE,
    build_data_set,
    compute_foreign_values,
    encode_by_pillow,
    encode_by_pydicom,
    encode_compressed,
    encode_lossless_jpeg,
    encode_native,
    save_to_bytes,
    strip_preamble,
)
from PIL import Image
from pydicom.dataset import Dataset

from core.scan import NotAnMRIError, read_scan, read_volume, to_image, to_uint8
from demo.phantom import draw_phantom

ROWS, COLUMNS = 36, 44


def values(bits: int = 12, kind: str = "u", width: int = 0) -> np.ndarray:
    """Return a pattern over the whole range, neither square nor symmetric: (36, 44)."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    pattern = (row * row * 5 + column * 37 + (row * column) % 11) % (1 << bits)
    pattern = pattern - (1 << (bits - 1)) if kind == "i" else pattern
    return pattern.astype(f"{kind}{width or (1 if bits <= 8 else 2 if bits <= 16 else 4)}")


def rgb() -> np.ndarray:
    """Return a nearly grey colour picture: (36, 44, 3) uint8."""
    grey = np.add.outer(np.arange(ROWS) * 3, np.arange(COLUMNS) * 2).astype(np.uint8)
    return np.stack([grey, grey + 3, grey + 9], axis=-1)


def luma(colours: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(colours).convert("L"), dtype=np.float32)


def ybr(colours: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(colours).convert("YCbCr"))


def wide(pattern: np.ndarray) -> np.ndarray:
    """Repeat each column, so that halving the colours' columns loses nothing."""
    return pattern.repeat(2, axis=1)


def plain(bits: int, kind: str = "u", syntax: str = EXPLICIT) -> tuple[bytes, np.ndarray]:
    stored = values(bits, kind)
    return encode_native(build_data_set(stored, bits), stored, syntax), stored


def pack(
    syntax: str, stored: np.ndarray, frame: bytes, bits: int = 0, **attributes: Any
) -> tuple[bytes, np.ndarray]:
    expected = luma(stored) if stored.shape[-1] == 3 else stored
    return encode_compressed(build_data_set(stored, bits, **attributes), [frame], syntax), expected


def lossless(bits: int, kind: str = "u", syntax: str = LOSSLESS, **options: int) -> Any:
    stored = values(bits, kind)
    unsigned = stored.astype(np.int64) & ((1 << bits) - 1)
    return pack(syntax, stored, encode_lossless_jpeg(unsigned, bits, **options), bits)


def build_encoded(
    syntax: str, bits: int, kind: str = "u", **options: Any
) -> tuple[bytes, np.ndarray]:
    stored = values(bits, kind)
    return pack(syntax, stored, encode_by_pydicom(stored, syntax, bits, **options), bits)


def colours(photometric: str, stored: np.ndarray, **attributes: Any) -> tuple[bytes, np.ndarray]:
    ds = build_data_set(rgb(), PhotometricInterpretation=photometric, **attributes)
    ds.Columns = stored.size // (3 * ROWS) if "422" not in photometric else 2 * COLUMNS
    return encode_native(ds, stored), luma(rgb())


def halve_colour() -> tuple[bytes, np.ndarray]:
    y, cb, cr = np.moveaxis(wide(ybr(rgb())), -1, 0)
    stored = np.stack([y[:, ::2], y[:, 1::2], cb[:, ::2], cr[:, ::2]], axis=-1)
    return colours("YBR_FULL_422", stored)[0], wide(luma(rgb()))


def deep_jpeg() -> tuple[bytes, np.ndarray]:
    stored = np.add.outer(np.arange(ROWS) * 50, np.arange(COLUMNS) * 40).astype(np.uint16)
    return pack(EXTENDED, stored, imagecodecs.jpeg8_encode(stored, 98, bitspersample=12), 12)


def adobe() -> tuple[bytes, np.ndarray]:
    """Return colours in JPEG with the marker that says how they are stored; the header is wrong."""
    frame = encode_by_pillow(rgb(), "JPEG", quality=95)
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\1"
    return pack(JPEG, rgb(), frame[:2] + marker + frame[2:], PhotometricInterpretation="RGB")


def palette(depth: int) -> tuple[bytes, np.ndarray]:
    stored = values(8)
    table = np.arange(256)[::-1] * (257 if depth == 16 else 1)
    ds = build_data_set(stored, PhotometricInterpretation="PALETTE COLOR")
    add_tables(ds, [256, 0, depth], table.astype(f"<u{depth // 8}").tobytes())
    return encode_native(ds, stored), 255 - stored.astype(np.float32)


def palette_of_eight_in_sixteen() -> tuple[bytes, np.ndarray]:
    """Return a palette that declares 16 bits and holds 8."""
    stored = values(8)
    ds = build_data_set(stored, PhotometricInterpretation="PALETTE COLOR")
    add_tables(ds, [256, 0, 16], np.arange(256)[::-1].astype("<u2").tobytes())
    return encode_native(ds, stored), 255 - stored.astype(np.float32)


def palette_of_many() -> tuple[bytes, np.ndarray]:
    """Return 600 entries of 8 bits, the first for the number 50."""
    stored = values(10)
    ds = build_data_set(stored, 10, PhotometricInterpretation="PALETTE COLOR")
    add_tables(ds, [600, 50, 8], (np.arange(600) % 251).astype(np.uint8).tobytes())
    return encode_native(ds, stored), (np.clip(stored.astype(int) - 50, 0, 599) % 251)


def segmented_palette(depth: int) -> tuple[bytes, np.ndarray]:
    """Return three levels and two ramps in place of a table of 256."""
    stored = values(8)
    unit = 257 if depth == 16 else 1
    words = [0, 3, 9 * unit, 7 * unit, 5 * unit, 1, 100, 205 * unit, 1, 153, 52 * unit]
    ds = build_data_set(stored, PhotometricInterpretation="PALETTE COLOR")
    add_tables(ds, [256, 0, depth], np.array(words, f"<u{depth // 8}").tobytes(), "Segmented")
    table = [9, 7, 5, *range(7, 207, 2), *range(204, 51, -1)]
    return encode_native(ds, stored), np.array(table)[stored]


def add_tables(ds: Dataset, descriptor: list[int], data: bytes, kind: str = "") -> None:
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", descriptor)
        setattr(ds, f"{kind}{colour}PaletteColorLookupTableData", data + b"\0" * (len(data) % 2))
        ds[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"


def real(keyword: str, width: int) -> tuple[bytes, np.ndarray]:
    stored = (values(12).astype(np.float64) / 7).astype(f"<f{width}")
    ds = build_data_set(stored)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    setattr(ds, keyword, stored.tobytes())
    return save_to_bytes(ds, EXPLICIT), stored.astype(np.float32)


KINDS: dict[str, Callable[[], tuple[bytes, np.ndarray]]] = {
    **{
        f"{name}, {bits} bits {kind}": lambda a=syntax, b=bits, c=kind: plain(b, c, a)
        for (name, syntax), (bits, kind) in itertools.product(
            {
                "explicit": EXPLICIT,
                "implicit": IMPLICIT,
                "big endian": BIG_ENDIAN,
                "deflated": DEFLATED,
            }.items(),
            [(8, "u"), (8, "i"), (12, "u"), (12, "i"), (16, "u"), (16, "i")],
        )
    },
    "explicit, 32 bits": lambda: plain(20, "u"),
    "float": lambda: real("FloatPixelData", 4),
    "double": lambda: real("DoubleFloatPixelData", 8),
    "no preamble, implicit": lambda: (
        strip_preamble(build_data_set(values()), values(), True),
        values(),
    ),
    "no preamble, explicit": lambda: (
        strip_preamble(build_data_set(values()), values(), False),
        values(),
    ),
    **{
        f"{name}, {bits} bits {kind}": lambda a=syntax, b=bits, c=kind: build_encoded(a, b, c)
        for (name, syntax), (bits, kind) in itertools.product(
            {"RLE": RLE, "JPEG-LS": LS}.items(),
            [(8, "u"), (8, "i"), (12, "u"), (12, "i"), (16, "u"), (16, "i")],
        )
    },
    "RLE, RGB": lambda: pack(RLE, rgb(), encode_by_pydicom(rgb(), RLE)),
    "JPEG-LS, RGB": lambda: pack(LS, rgb(), encode_by_pydicom(rgb(), LS)),
    **{
        f"JPEG Lossless .70, {bits} bits {kind}": lambda b=bits, k=kind: lossless(b, k)
        for bits, kind in [(8, "u"), (12, "u"), (12, "i"), (16, "u"), (16, "i")]
    },
    **{
        f"JPEG Lossless .57, predictor {n}": lambda n=n: lossless(12, "u", PROCESS_14, predictor=n)
        for n in range(1, 8)
    },
    "JPEG Lossless, restarts": lambda: lossless(12, restart=6),
    "JPEG Lossless, RGB": lambda: pack(LOSSLESS, rgb(), encode_lossless_jpeg(rgb(), 8)),
    "JPEG Lossless, another's": lambda: pack(
        PROCESS_14, compute_foreign_values(), FOREIGN_LOSSLESS, bits=12
    ),
    "JPEG 2000, 8 bits": lambda: pack(
        LOSSLESS_2000, values(8), encode_by_pillow(values(8), "JPEG2000", no_jp2=True)
    ),
    "JPEG 2000, 16 bits": lambda: pack(
        LOSSLESS_2000, values(16), encode_by_pillow(values(16), "JPEG2000", no_jp2=True)
    ),
    "JPEG 2000, 12 bits signed, another's": lambda: pack(
        LOSSLESS_2000,
        compute_foreign_values().astype(np.int16) - 1000,
        FOREIGN_SIGNED_2000,
        bits=12,
    ),
    "JPEG 2000, RGB": lambda: pack(
        LOSSLESS_2000,
        rgb(),
        encode_by_pillow(rgb(), "JPEG2000", no_jp2=True, mct=1),
        PhotometricInterpretation="YBR_RCT",
    ),
    "RGB by pixel": lambda: colours("RGB", rgb()),
    "RGB by plane": lambda: colours("RGB", np.moveaxis(rgb(), -1, 0), PlanarConfiguration=1),
    "palette, 8 bits": lambda: palette(8),
    "palette, 16 bits": lambda: palette(16),
    "palette, 16 bits that hold 8": palette_of_eight_in_sixteen,
    "palette, 600 entries": palette_of_many,
    "segmented palette, 8 bits": lambda: segmented_palette(8),
    "segmented palette, 16 bits": lambda: segmented_palette(16),
}
LOSSY: dict[str, tuple[Callable[[], tuple[bytes, np.ndarray]], float]] = {
    "YBR": (lambda: colours("YBR_FULL", ybr(rgb())), 1),
    "YBR 422": (halve_colour, 1),
    "JPEG, grey": (
        lambda: pack(JPEG, rgb()[..., 0], encode_by_pillow(rgb()[..., 0], "JPEG", quality=95)),
        6,
    ),
    "JPEG, colour": (
        lambda: pack(
            JPEG,
            rgb(),
            encode_by_pillow(rgb(), "JPEG", quality=95),
            PhotometricInterpretation="YBR_FULL_422",
        ),
        6,
    ),
    "JPEG extended, 8 bits": (
        lambda: pack(EXTENDED, rgb()[..., 0], encode_by_pillow(rgb()[..., 0], "JPEG", quality=95)),
        6,
    ),
    "JPEG extended, 12 bits": (deep_jpeg, 40),
    "JPEG, colour, Adobe's": (adobe, 6),
    "JPEG-LS, near": (lambda: build_encoded(NEAR_LS, 12, jls_error=3), 3),
    "JPEG 2000, lossy": (
        lambda: pack(
            JPEG_2000,
            rgb()[..., 0],
            encode_by_pillow(
                rgb()[..., 0],
                "JPEG2000",
                no_jp2=True,
                irreversible=True,
                quality_mode="dB",
                quality_layers=[50],
            ),
        ),
        6,
    ),
    "JPEG Lossless, two bits dropped": (lambda: lossless(12, shift=2), 3),
}


# --- kinds ---------------------------------------------------------------------------------------


def test_there_are_more_than_forty_kinds():
    assert len(KINDS) + len(LOSSY) > 40


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_exact(kind):
    data, expected = KINDS[kind]()
    volume = read_volume(data)
    assert volume.kind == "DICOM"
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, expected[None].astype(np.float32))
    assert volume.slice().shape == (1, 224, 224)


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_values_are_close(kind):
    make, tolerance = LOSSY[kind]
    data, expected = make()
    difference = np.abs(read_volume(data).data - expected.astype(np.float32))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
def test_frames_of_a_file_are_its_slices(syntax):
    stored = np.stack([values(12) + n for n in range(5)])
    volume = read_volume(encode_native(build_data_set(stored, NumberOfFrames=5), stored, syntax))
    assert np.array_equal(volume.data, stored)
    assert len(volume) == 5


@pytest.mark.parametrize("syntax", [RLE, LOSSLESS, LS])
def test_compressed_frames_of_a_file_are_its_slices(syntax):
    stored = np.stack([values(12) + n for n in range(3)])
    encode = encode_lossless_jpeg if syntax == LOSSLESS else encode_by_pydicom
    frames = [encode(frame, *([] if syntax == LOSSLESS else [syntax])) for frame in stored]
    volume = read_volume(
        encode_compressed(build_data_set(stored, NumberOfFrames=3), frames, syntax)
    )
    assert np.array_equal(volume.data, stored)


def scatter_bits(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 12-bit values, and the same with the four bits above them set here and there."""
    stored = values(12, kind)
    other = (np.arange(stored.size).reshape(stored.shape) * 7 % 16).astype(np.uint16) << 12
    return stored, (stored.view(np.uint16) & 0x0FFF | other).view(stored.dtype)


ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    RLE: lambda words: encode_by_pydicom(words, RLE),
    LOSSLESS: lambda words: encode_lossless_jpeg(words.view(np.uint16), 16),
    LS: lambda words: encode_by_pydicom(words, LS),
    LOSSLESS_2000: lambda words: encode_by_pillow(words.view(np.uint16), "JPEG2000", no_jp2=True),
}


@pytest.mark.parametrize("kind", ["u", "i"])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN, *ENCODERS])
def test_bits_that_are_not_stored_are_no_values(syntax, kind):
    """They hold overlays in old files."""
    stored, words = scatter_bits(kind)
    ds = build_data_set(words, 12)
    if syntax in ENCODERS:
        data = encode_compressed(ds, [ENCODERS[syntax](words)], syntax)
    else:
        data = encode_native(ds, words, syntax)
    assert np.array_equal(read_volume(data).data[0], stored)


@pytest.mark.parametrize("kind", ["u", "i"])
@pytest.mark.parametrize("syntax", [EXPLICIT, RLE])
def test_values_in_the_upper_bits(syntax, kind):
    stored = values(12, kind)
    words = (stored.astype(np.int64) << 4 | 5).astype(stored.dtype)
    ds = build_data_set(words, 12, HighBit=15)
    if syntax == RLE:
        data = encode_compressed(ds, [encode_by_pydicom(words, RLE)], RLE)
    else:
        data = encode_native(ds, words)
    assert np.array_equal(read_volume(data).data[0], stored)


@pytest.mark.parametrize("high", [10, 16, 99])
def test_a_high_bit_that_cannot_be_changes_nothing(high):
    stored = values(12)
    assert np.array_equal(
        read_volume(encode_native(build_data_set(stored, 12, HighBit=high), stored)).data[0], stored
    )


# --- units and levels ----------------------------------------------------------------------------


def test_rescale_gives_the_files_own_units():
    stored = values(12)
    ds = build_data_set(stored, 12, RescaleSlope="2.5", RescaleIntercept="-1024")
    assert np.allclose(read_volume(encode_native(ds, stored)).data, stored * 2.5 - 1024)


def test_a_table_of_units():
    stored = values(8)
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype=np.uint16) * 3 + 7).tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    ds = build_data_set(stored, ModalityLUTSequence=[table])
    assert np.array_equal(read_volume(encode_native(ds, stored)).data[0], stored * 3.0 + 7)


def test_own_windows_come_first():
    stored = values(12)
    ds = build_data_set(stored, 12, WindowCenter=["40", "600"], WindowWidth=["80", "2800"])
    windows = read_volume(encode_native(ds, stored)).windows
    assert [w.name for w in windows] == ["file 1", "file 2", "auto", "full"]
    assert windows[0][1:] == (40, 80)
    assert windows[-1].width == stored.max() - float(stored.min())


def test_a_table_of_brightness_counts_as_a_window():
    stored = values(12)
    table = Dataset()
    table.LUTDescriptor = [100, 50, 8]
    table.LUTData = bytes(100)
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    (window, *_) = read_volume(
        encode_native(build_data_set(stored, 12, VOILUTSequence=[table]), stored)
    ).windows
    assert window == ("file 1", 100, 100)


def test_the_window_of_a_file_changes_nothing_for_the_model():
    stored = values(12)
    wide = encode_native(
        build_data_set(stored, 12, WindowCenter="2000", WindowWidth="4000"), stored
    )
    narrow = encode_native(build_data_set(stored, 12, WindowCenter="10", WindowWidth="5"), stored)
    assert torch.equal(read_scan(wide), read_scan(narrow))


def test_low_values_are_bright_where_the_file_says_so():
    stored = values(12)
    one, two = (
        read_volume(
            encode_native(
                build_data_set(stored, 12, PhotometricInterpretation=f"MONOCHROME{n}"), stored
            )
        )
        for n in (1, 2)
    )
    assert np.array_equal(one.data, two.data)
    assert one.is_inverted
    assert not two.is_inverted
    inside = (slice(None), slice(30, 190))
    total = one.slice()[inside] + two.slice()[inside]
    assert (total - 1).abs().max() < 1.5 / 255


def test_units_do_not_change_the_scan():
    stored = values(12)
    scaled = build_data_set(stored, 12, RescaleSlope="3", RescaleIntercept="-500")
    plain = read_scan(encode_native(build_data_set(stored, 12), stored))
    assert (read_scan(encode_native(scaled, stored)) - plain).abs().max() < 1.5 / 255


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_eight_bits_read_as_their_png_does(photometric):
    levels = to_uint8(draw_phantom(3, tumour=True))[0]
    stored = levels if photometric == "MONOCHROME2" else np.stack([levels] * 3, axis=-1)
    scan = read_scan(encode_native(build_data_set(stored), stored))
    assert torch.equal(scan, read_scan(to_image(draw_phantom(3, tumour=True))))


def test_a_head_keeps_its_shape_where_pixels_are_not_square():
    round_head = Image.fromarray(to_uint8(draw_phantom(3, tumour=False))[0])
    squashed = np.asarray(round_head.resize((224, 112)))
    volume = read_volume(encode_native(build_data_set(squashed, PixelSpacing=["2", "1"]), squashed))
    assert volume.spacing == (2, 1)
    assert (volume.slice() - draw_phantom(3, tumour=False)).abs().mean() < 0.02


# --- what else a file says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "marks"),
    [
        ([1, 0, 0, 0, 1, 0], ("R", "L", "A", "P")),
        ([1, 0, 0, 0, 0, -1], ("R", "L", "S", "I")),
        ([0, 1, 0, 0, 0, -1], ("A", "P", "S", "I")),
        ([-1, 0, 0, 0, 1, 0], ("L", "R", "A", "P")),
        ([0.9, 0.1, 0.42, -0.1, 0.99, 0], ("R", "L", "A", "P")),
        ([0, 0, 0, 0, 0, 0], None),
    ],
)
def test_sides_are_marked(orientation, marks):
    stored = values(12)
    ds = build_data_set(stored, 12, ImageOrientationPatient=orientation)
    assert read_volume(encode_native(ds, stored)).marks == marks


def test_without_geometry_nothing_is_marked():
    volume = read_volume(plain(12)[0])
    assert (volume.marks, volume.spacing, volume.gap, volume.notes) == (None, None, None, ())


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ({"Modality": "CT"}, "it is CT"),
        ({"BurnedInAnnotation": "YES"}, "may name the patient"),
    ],
)
def test_notes_name_the_limits_of_the_file(attributes, note):
    stored = values(12)
    volume = read_volume(encode_native(build_data_set(stored, 12, **attributes), stored))
    (found,) = volume.notes
    assert note in found
    assert found.endswith(".")
    assert volume.doubts == ((found,) if "Modality" in attributes else ())


@pytest.mark.parametrize(
    ("centre", "width", "named"),
    [("30", "60", ", and the file's own window, 0 to 60, is not used"), ("128", "256", "")],
)
def test_a_dark_picture_is_doubtful_and_a_narrower_window_named(centre, width, named):
    stored = (to_uint8(draw_phantom(3, tumour=False))[0] * (60 / 255)).astype(np.uint8)
    ds = build_data_set(stored, WindowCenter=centre, WindowWidth=width)
    volume = read_volume(encode_native(ds, stored))
    assert volume.levels == (0, 255)
    assert volume.doubts == (
        f"The picture is dark: it reaches {np.percentile(stored, 99) / 255:.0%} of full brightness"
        f"{named}.",
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_usual_picture_is_not_dark(photometric):
    stored = to_uint8(draw_phantom(3, tumour=False))[0]
    ds = build_data_set(stored, PhotometricInterpretation=photometric)
    assert read_volume(encode_native(ds, stored)).doubts == ()


def test_a_colour_photograph_is_told_apart():
    photo = np.zeros((64, 64, 3), dtype=np.uint8)
    photo[:, :32, 0] = photo[:, 32:, 2] = 200
    data = encode_native(build_data_set(photo), photo)
    with pytest.raises(NotAnMRIError):
        read_volume(data)
    assert "colours" in read_volume(data, any_picture=True).notes[0]


@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": ["0", "0"]},
        {"ImagePositionPatient": ["1", "2"]},
        {"WindowWidth": "0", "WindowCenter": "0"},
        {"WindowWidth": "", "WindowCenter": ""},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"InstanceNumber": ""},
        {"SeriesInstanceUID": "not a number"},
    ],
)
def test_a_bad_header_does_not_hide_a_good_picture(attributes):
    stored = values(12)
    assert np.array_equal(
        read_volume(encode_native(build_data_set(stored, 12, **attributes), stored)).data[0], stored
    )


def test_nothing_of_the_patient_is_read(caplog, capsys):
    stored = values(12)
    data = encode_native(build_data_set(stored, 12, SeriesInstanceUID="Secret"), stored)
    caplog.clear()
    volume = read_volume(data)
    said = repr(volume) + caplog.text + "".join(capsys.readouterr())
    assert "secret" not in said.lower()
