"""Forged, damaged and oversized files end in one sentence, and in little memory."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_maker import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    FOREIGN_SIGNED_2000,
    IMPLICIT,
    JPEG,
    LOSSLESS,
    LOSSLESS_2000,
    LS,
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
from pydicom.pixels import get_decoder
from pydicom.uid import UID
from refusals import get_refusal
from series_maker import zip_files

from core.scan import ScanError, read_volume, to_png
from core.scan.dicom.codecs import PLUGIN
from core.scan.errors import MB
from demo.phantom import draw_phantom

PICTURE = (np.add.outer(np.arange(36) * 50, np.arange(44) * 30)).astype(np.uint16)
BYTES = (PICTURE >> 4).astype(np.uint8)
SHAPE = (33, 40, 36)


def dicom(syntax: str = EXPLICIT, **attributes: Any) -> bytes:
    return encode_native(build_data_set(PICTURE, 12, **attributes), PICTURE, syntax)


def build_framed(
    frame: bytes, syntax: str, stored: np.ndarray = PICTURE, **attributes: Any
) -> bytes:
    return encode_compressed(build_data_set(stored, **attributes), [frame], syntax)


def nifti(values: np.ndarray | None = None, **fields: Any) -> bytes:
    """Return a valid NIfTI file with changed header fields."""
    values = np.indices(SHAPE).sum(0).astype(np.int16) if values is None else values
    image = nibabel.Nifti1Image(values, np.eye(4))
    data = bytearray(image.to_bytes())
    header = np.frombuffer(data, nibabel.Nifti1Header.template_dtype, count=1)
    for name, value in fields.items():
        header[name][0] = value
    return bytes(data)


def swap(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def video() -> bytes:
    return build_framed(b"\0\0\1\xb3", "1.2.840.10008.1.2.4.100")


def strip_pixels() -> bytes:
    return save_to_bytes(build_data_set(PICTURE), EXPLICIT)


def build_lying_jpeg() -> bytes:
    """Return a JPEG of 60,000 x 60,000 pixels in a file that declares 36 x 44."""
    frame = encode_by_pillow(BYTES, "JPEG")
    return build_framed(
        swap(frame, struct.pack(">2H", 36, 44), struct.pack(">2H", 60000, 60000)), JPEG
    )


def build_lying_2000() -> bytes:
    size = struct.pack(">2L", 40, 32)
    frame = swap(FOREIGN_SIGNED_2000, size, struct.pack(">2L", 60000, 60000))
    return encode_compressed(build_data_set(compute_foreign_values(), 12), [frame], LOSSLESS_2000)


def build_many_fragments() -> bytes:
    return encode_compressed(
        build_data_set(PICTURE, NumberOfFrames=2), [b"\0\0"] * 200_100, LOSSLESS
    )


def cut_hole(stream: bytes) -> bytes:
    """Return a JPEG stream without 40 bytes of its values, but with its end."""
    middle = (len(stream) + stream.index(b"\xff\xda")) // 2
    return stream[:middle] + stream[middle + 40 :]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "DICOM without pixels": (strip_pixels, "contains no picture"),
    "DICOM cut in its header": (lambda: dicom()[:300], "contains no picture"),
    "DICOM cut in its pixels": (lambda: dicom()[:-100], "incomplete: it declares 1 slices of 44"),
    "DICOM of random bytes": (
        lambda: bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000),
        "contains no picture|damaged",
    ),
    "huge rows and columns": (lambda: dicom(Rows=65535, Columns=65535), "50 million pixels"),
    "rows of nothing": (lambda: dicom(Rows=0), "damaged"),
    "too small": (lambda: dicom(Rows=16, Columns=16), "at least 32 x 32"),
    "two million frames": (lambda: dicom(NumberOfFrames=2_000_000), "at most 2,000"),
    "more frames than there are": (
        lambda: dicom(NumberOfFrames=500),
        "500 slices.* and contains 1",
    ),
    "frames beyond the memory": (
        lambda: dicom(NumberOfFrames=2000, Rows=4000, Columns=4000),
        "more than 1 GB",
    ),
    "no frames": (lambda: dicom(NumberOfFrames=-1), "damaged"),
    "fewer compressed frames": (
        lambda: build_framed(encode_lossless_jpeg(PICTURE, 12), LOSSLESS, NumberOfFrames=3),
        "damaged|incomplete",
    ),
    "video": (video, "export it uncompressed"),
    "compressed without saying how": (
        lambda: build_framed(encode_lossless_jpeg(PICTURE, 12), LOSSLESS).replace(
            LOSSLESS.encode(), b"9" * len(LOSSLESS)
        ),
        "export it uncompressed",
    ),
    "unknown colours": (lambda: dicom(PhotometricInterpretation="HSV"), "MONOCHROME2"),
    "one bit a pixel": (lambda: dicom(BitsAllocated=1, BitsStored=1), "MONOCHROME2"),
    "endless values": (lambda: dicom(RescaleSlope="1e300"), "not numbers"),
    "JPEG larger than it says": (build_lying_jpeg, "damaged"),
    "JPEG 2000 larger than it says": (build_lying_2000, "damaged"),
    "JPEG Lossless cut off": (
        lambda: build_framed(encode_lossless_jpeg(PICTURE, 12)[:-40], LOSSLESS, bits=12),
        "damaged",
    ),
    "JPEG Lossless with a hole": (
        lambda: build_framed(cut_hole(encode_lossless_jpeg(PICTURE, 12, 7)), LOSSLESS, bits=12),
        "damaged",
    ),
    "JPEG Lossless with a hole between restarts": (
        lambda: build_framed(
            cut_hole(encode_lossless_jpeg(PICTURE, 12, restart=6)), LOSSLESS, bits=12
        ),
        "damaged",
    ),
    "JPEG with a hole": (
        lambda: build_framed(cut_hole(encode_by_pillow(BYTES, "JPEG")), JPEG, BYTES),
        "damaged",
    ),
    "a palette whose segments never end": (
        lambda: dicom(
            PhotometricInterpretation="PALETTE COLOR",
            RedPaletteColorLookupTableDescriptor=[0, 0, 16],
            SegmentedRedPaletteColorLookupTableData=struct.pack("<3H", 1, 65535, 9) * 100_000,
        ),
        "damaged",
    ),
    "a palette whose segments are empty": (
        lambda: dicom(
            PhotometricInterpretation="PALETTE COLOR",
            RedPaletteColorLookupTableDescriptor=[0, 0, 16],
            SegmentedRedPaletteColorLookupTableData=bytes(100_000),
        ),
        "damaged",
    ),
    "a palette of indirect segments": (
        lambda: dicom(
            PhotometricInterpretation="PALETTE COLOR",
            RedPaletteColorLookupTableDescriptor=[256, 0, 16],
            SegmentedRedPaletteColorLookupTableData=struct.pack("<7H", 0, 1, 9, 2, 1, 0, 0),
        ),
        "kind of palette cannot be read here",
    ),
    "more bits than declared": (
        lambda: build_framed(encode_lossless_jpeg(PICTURE, 12), LOSSLESS, BYTES),
        "damaged",
    ),
    "JPEG-LS cut off": (
        lambda: build_framed(encode_by_pydicom(PICTURE, LS, 12)[:300], LS, bits=12),
        "damaged",
    ),
    "RLE of other segments": (lambda: build_framed(encode_by_pydicom(BYTES, RLE), RLE), "damaged"),
    "RLE cut off": (lambda: build_framed(encode_by_pydicom(PICTURE, RLE)[:90], RLE), "damaged"),
    "a hundred thousand fragments": (build_many_fragments, "damaged"),
    "DICOM and NIfTI in one": (
        lambda: nifti()[:128] + b"DICM" + nifti()[132:],
        "damaged|contains no picture",
    ),
    "NIfTI cut off": (lambda: nifti()[:-100], "cut off"),
    "NIfTI cut in its header": (lambda: nifti()[:349], "cut off"),
    "NIfTI larger than it is": (lambda: nifti(dim=(3, 300, 300, 300, 1, 1, 1, 1)), "cut off"),
    "NIfTI beyond the memory": (
        lambda: nifti(dim=(3, 1900, 1900, 1900, 1, 1, 1, 1)),
        "more than 1 GB",
    ),
    "NIfTI of too many slices": (
        lambda: nifti(dim=(3, 64, 64, 20000, 1, 1, 1, 1)),
        "at most 2,000",
    ),
    "NIfTI of negative size": (lambda: nifti(dim=(3, -64, 64, 64, 1, 1, 1, 1)), "damaged"),
    "NIfTI of no dimensions": (lambda: nifti(dim=(0, 0, 0, 0, 0, 0, 0, 0)), "damaged|32 x 32"),
    "NIfTI of too many dimensions": (
        lambda: nifti(dim=(99, 9, 9, 9, 9, 9, 9, 9)),
        "damaged|slices",
    ),
    "NIfTI that starts nowhere": (lambda: nifti(vox_offset=1e30), "damaged"),
    "NIfTI of no type": (lambda: nifti(datatype=999), "damaged"),
    "NIfTI of complex numbers": (lambda: nifti(datatype=32), "not contain plain grey values"),
    "NIfTI of colours": (lambda: nifti(datatype=128), "not contain plain grey values"),
    "NIfTI with a huge slope": (lambda: nifti(scl_slope=3e38, scl_inter=0), "not numbers"),
    "NIfTI with NaN": (lambda: nifti(np.full(SHAPE, np.nan, np.float32)), "not numbers"),
    "NIfTI with infinity": (lambda: nifti(np.full(SHAPE, np.inf, np.float32)), "not numbers"),
    "half a NIfTI pair": (lambda: nifti(magic=b"ni1"), "half of a pair"),
    "gzip cut off": (lambda: gzip.compress(nifti())[:-500], "cut off"),
    "gzip broken": (
        lambda: gzip.compress(nifti())[:200] + bytes(300) + gzip.compress(nifti())[500:],
        "damaged",
    ),
    "gzip of something else": (lambda: gzip.compress(dicom()), "not contain a NIfTI"),
    "gzip of nothing": (lambda: gzip.compress(b""), "not contain a NIfTI"),
    "text": (lambda: b"Patient was seen on Monday.", "not a picture or a volume"),
}


refused = partial(get_refusal, read_volume)


@contextmanager
def limit_memory(megabytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence_and_little_memory(name):
    make, sentence = REFUSED[name]
    data = make()
    with limit_memory(60):
        message = refused(data)
    assert re.search(sentence, message), message


# --- bombs and limits ----------------------------------------------------------------------------


def test_of_a_gzip_bomb_only_the_volume_is_unpacked():
    data = gzip.compress(nifti() + bytes(100 * MB), 1)
    with limit_memory(10):
        assert read_volume(data).data.shape == SHAPE[::-1]


def test_a_gzip_bomb_in_front_of_the_volume():
    data = gzip.compress(nifti(vox_offset=2**30) + bytes(50 * MB), 1)
    with limit_memory(10):
        assert "damaged" in refused(data)


def test_a_deflated_bomb(monkeypatch):
    monkeypatch.setattr("core.scan.dicom.header.MAX_UNPACKED", 1 * MB)
    plain = encode_native(build_data_set(PICTURE, PixelPaddingValue=0), PICTURE, DEFLATED)
    start = 144 + int.from_bytes(plain[140:144], "little")  # after the file's meta group
    packer = zlib.compressobj(wbits=-15)
    bomb = plain[:start] + packer.compress(bytes(40 * MB)) + packer.flush()
    with limit_memory(10):
        assert "unpacks to more than 1 GB" in refused(bomb)


@pytest.mark.parametrize("kind", [0, 1], ids=["levels", "ramps"])
def test_a_palette_of_many_segments_takes_a_second(kind):
    """Of 65,536 segments a colour, in a file of 20 frames."""
    table = np.arange(65536) // 256
    words = np.column_stack([np.full(65536, kind), np.ones(65536, int), table]).astype("<u2")
    words[0, 0] = 0  # a ramp starts from a level
    stored = np.stack([np.arange(36 * 44, dtype=np.uint16).reshape(36, 44) * 41] * 20)
    attributes: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [0, 0, 16]
        attributes[f"Segmented{colour}PaletteColorLookupTableData"] = words.tobytes()
    ds = build_data_set(
        stored, NumberOfFrames=20, PhotometricInterpretation="PALETTE COLOR", **attributes
    )
    data = encode_native(ds, stored)
    started = time.thread_time()
    volume = read_volume(data)
    assert time.thread_time() - started < 3
    assert np.array_equal(volume.data, table[stored])


def test_a_run_length_bomb():
    """Each two bytes unpack to 128: 64 times the size."""
    segment = b"\x81\0" * (4 * MB)
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    data = build_framed(header + segment * 2, RLE)
    with limit_memory(80):  # four copies of the 16 MB
        assert "damaged" in refused(data)


def test_a_zip_bomb_that_lies():
    """The entry declares 1 kB and holds 50 MB: only 1 kB is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slice", dicom()[:200] + bytes(50 * MB))
    data = bytearray(buffer.getvalue())
    for place in (22 + data.index(b"PK\x03\x04"), 24 + data.index(b"PK\x01\x02")):
        data[place : place + 4] = (1024).to_bytes(4, "little")
    with limit_memory(10):
        refused(bytes(data))


def test_a_file_in_a_zip_is_held_to_the_limit_of_a_file():
    data = bytearray(zip_files(dicom()))
    size = 24 + data.index(b"PK\x01\x02")
    data[size : size + 4] = (250 * MB + 1).to_bytes(4, "little")
    with limit_memory(10):
        assert "larger than 250 MB" in refused(bytes(data))


@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (b"\x89PNG", 20),
        (bytes(128) + b"DICM", 250),
        (b"PK\3\4", 250),
        (b"\x1f\x8b", 250),
        (nifti()[:352], 250),
    ],
)
def test_files_beyond_their_limit_are_not_even_read(head, limit, tmp_path: Path):
    path = tmp_path / "large"
    path.write_bytes(head)
    os.truncate(path, limit * MB + 1)  # takes no room on the disk
    with limit_memory(1):
        assert f"larger than {limit} MB" in refused(path)


def test_a_folder_beyond_its_limits(tmp_path):
    for n in range(5):
        (tmp_path / str(n)).touch()
        os.truncate(tmp_path / str(n), 249 * MB)
    assert "more than 1 GB" in refused(tmp_path)
    os.truncate(tmp_path / "0", 251 * MB)
    assert "larger than 250 MB" in refused(tmp_path)


def test_what_follows_a_good_picture_is_not_looked_at():
    """A PNG that is also a zip, read from its end, is a picture."""
    png = to_png(draw_phantom(0, tumour=True))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("slice", dicom())
    volume = read_volume(png + archive.getvalue())
    assert volume.kind == "picture"
    assert np.array_equal(volume.data, read_volume(png).data)


# --- damage --------------------------------------------------------------------------------------

WHOLE: dict[str, Callable[[], bytes]] = {
    "explicit": dicom,
    "implicit": lambda: dicom(IMPLICIT),
    "big endian": lambda: dicom(BIG_ENDIAN),
    "deflated": lambda: dicom(DEFLATED),
    "bare": lambda: strip_preamble(build_data_set(PICTURE), PICTURE, True),
    "RLE": lambda: build_framed(encode_by_pydicom(PICTURE, RLE), RLE),
    "JPEG": lambda: build_framed(encode_by_pillow(BYTES, "JPEG"), JPEG, BYTES),
    "JPEG Lossless": lambda: build_framed(encode_lossless_jpeg(PICTURE, 12, 4), LOSSLESS, bits=12),
    "JPEG-LS": lambda: build_framed(encode_by_pydicom(PICTURE, LS, 12), LS, bits=12),
    "JPEG 2000": lambda: build_framed(
        encode_by_pillow(PICTURE, "JPEG2000", no_jp2=True), LOSSLESS_2000
    ),
    "NIfTI": nifti,
    "NIfTI packed": lambda: gzip.compress(nifti()),
}


@pytest.mark.parametrize("turns", [24, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WHOLE)
def test_damage_anywhere_ends_in_a_volume_or_a_scan_error(name, turns):
    whole = WHOLE[name]()
    rng = np.random.default_rng(turns)
    start = whole.find(b"\xfe\xff\x00\xe0")  # of compressed pixels
    for turn in range(turns):
        data = bytearray(whole)
        low = start + 16 if start > 0 and turn % 2 else 0
        for position in rng.integers(low, rng.choice([low + 400, len(data)]), 6):
            data[min(position, len(data) - 1)] = rng.integers(256)
        started = time.thread_time()
        try:
            volume = read_volume(bytes(data))
        except ScanError as error:
            assert str(error).endswith(".")
            continue
        finally:
            assert time.thread_time() - started < 5
        assert np.isfinite(volume.data).all()
        assert volume.data.ndim == 3


# --- surroundings --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dicom, nifti, lambda: gzip.compress(nifti())])
@pytest.mark.parametrize("package", ["pydicom", "nibabel"])
def test_without_the_packages_the_sentence_says_what_to_install(make, package, monkeypatch):
    data = make()
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if (package == "pydicom") == (make is dicom):
        assert "extra 'medical'" in refused(data)
    else:
        assert read_volume(data).data.size


def test_without_imagecodecs_only_compressed_files_need_it(monkeypatch):
    decoder = get_decoder(UID(LOSSLESS))
    if PLUGIN in decoder.available_plugins:
        decoder.remove_plugin(PLUGIN)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert "extra 'medical'" in refused(WHOLE["JPEG Lossless"]())
    assert np.array_equal(read_volume(dicom()).data[0], PICTURE)


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for make in (dicom, nifti, WHOLE["JPEG Lossless"], WHOLE["JPEG 2000"]):
        read_volume(make())
    assert list(tmp_path.iterdir()) == []
