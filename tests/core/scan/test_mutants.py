"""Mutants of each unusual kind of file end in a volume or one sentence, in bounded resources."""

from __future__ import annotations

import gzip
import io
import re
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_maker import (
    EXPLICIT,
    IMPLICIT,
    LOSSLESS,
    LOSSLESS_2000,
    build_data_set,
    encode_by_pillow,
    encode_compressed,
    encode_lossless_jpeg,
    encode_native,
    strip_preamble,
)
from PIL import Image
from pydicom.dataset import Dataset
from refusals import get_refusal
from series_maker import (
    AXIAL,
    PLANES,
    build_frames,
    build_mosaic,
    build_slice,
    picture,
    place_frame,
    zip_files,
)

from core.scan import ScanError, read_volume
from core.scan.errors import MAX_UNPACKED, MB

pytestmark = pytest.mark.slow

MUTANTS = 60  # of each kind
SECONDS = 20  # for one mutant on a busy machine; the slowest took 0.3
DEEP = np.add.outer(np.arange(40) * 50, np.arange(48) * 30).astype(np.uint16)
EXTREMES = (b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"-1", b"1e308", b"nan", b"\\", b"9", b" ")


def build(without: str = "", **attributes: Any) -> bytes:
    ds = build_data_set(DEEP, 12, **attributes)
    if without:
        delattr(ds, without)
    return encode_native(ds, DEEP)


def build_palette() -> bytes:
    ds = build_data_set(DEEP.astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(range(256)) * 2)
    return encode_native(ds, DEEP.astype(np.uint8))


def build_planes() -> bytes:
    return build_frames([place_frame(plane, n) for plane in PLANES for n in range(3)])


def build_echoes() -> bytes:
    return zip_files(*(build_slice(n % 4, EchoTime=str(10 + 80 * (n // 4))) for n in range(8)))


def build_names() -> bytes:
    files = [encode_native(build_data_set(picture(n)), picture(n)) for n in range(4)]
    return zip_files(*files, names=["IM1", "IM10", "IM2", "IM9"])


def build_half_cut() -> bytes:
    return zip_files(*(build_slice(n)[: -900 if n == 1 else None] for n in range(4)))


def build_tiles(creator: str, syntax: str = EXPLICIT) -> bytes:
    place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 0]}
    tiles = np.stack([DEEP + n for n in range(4)])
    ds, mosaic = build_mosaic(tiles, 2, creator, SliceThickness="3", **place)
    return encode_native(ds, mosaic, syntax)


def build_uncounted() -> bytes:
    stored = np.stack([DEEP + n for n in range(4)])
    return encode_native(build_data_set(stored, 12), stored)


def build_bare() -> bytes:
    ds = build_data_set(DEEP, 12)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "Modality"):
        delattr(ds, keyword)
    return strip_preamble(ds, DEEP, True)


def build_private() -> bytes:
    ds = build_data_set(DEEP, 12)
    ds.private_block(0x0029, "MAKER", create=True).add_new(1, "OB", bytes(1000))
    nested = Dataset()
    nested.private_block(0x0029, "MAKER", create=True).add_new(2, "OB", bytes(100))
    ds.private_block(0x0029, "MAKER").add_new(3, "SQ", [nested, nested])
    return encode_native(ds, DEEP)


def build_overlay() -> bytes:
    frame = encode_by_pillow(DEEP | 0x8000, "JPEG2000", no_jp2=True)
    return encode_compressed(build_data_set(DEEP, 12), [frame], LOSSLESS_2000)


def build_lossless() -> bytes:
    stored = np.stack([DEEP, DEEP + 1])
    frames = [encode_lossless_jpeg(one, 16) for one in stored]
    return encode_compressed(build_data_set(stored, NumberOfFrames=2), frames, LOSSLESS)


def save(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def build_nifti() -> bytes:
    values = np.arange(40 * 40 * 6, dtype=np.int16).reshape(40, 40, 6)
    values[:4] = -32768
    return nibabel.Nifti1Image(values, np.eye(4)).to_bytes()


KINDS: dict[str, Callable[[], bytes]] = {
    "padding": lambda: build(PixelPaddingValue=0, PixelPaddingRangeLimit=30),
    "planes": build_planes,
    "text preamble": lambda: b"Export".ljust(128) + build()[128:],
    "TIFF preamble": lambda: b"II*\0\x08\0\0\0".ljust(128, b"\0") + build()[128:],
    "zip preamble": lambda: b"PK\3\4".ljust(128, b"\0") + build()[128:],
    "echoes": build_echoes,
    "names": build_names,
    "one of four cut": build_half_cut,
    "high bit": lambda: build(HighBit=15),
    "aspect": lambda: build(PixelAspectRatio=["1", "2"]),
    "no photometric": lambda: build("PhotometricInterpretation"),
    "no samples": lambda: build("SamplesPerPixel"),
    "empty table": lambda: build(ModalityLUTSequence=[Dataset()]),
    "slope": lambda: build(RescaleSlope="1.5", RescaleIntercept="-7"),
    "palette": build_palette,
    "overlay": build_overlay,
    "lossless frames": build_lossless,
    "mosaic": lambda: build_tiles("SIEMENS MR HEADER"),
    "implicit mosaic": lambda: build_tiles("SIEMENS MR HEADER", IMPLICIT),
    "unknown mosaic": lambda: build_tiles(""),
    "uncounted frames": build_uncounted,
    "group 10": build_bare,
    "private data": build_private,
    "deep TIFF": lambda: save(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}),
    "TIFF of 32 bits": lambda: save(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    "transparent PNG": lambda: save(Image.fromarray(DEEP.astype(np.uint8)), "PNG", transparency=9),
    "NIfTI": build_nifti,
    "packed NIfTI": lambda: gzip.compress(build_nifti(), 1),
}


def find_values(data: bytes) -> list[tuple[int, int]]:
    """Return position and length of the values in a DICOM header; none of other files."""
    if data[128:132] != b"DICM":
        return []
    found = pydicom.dcmread(io.BytesIO(data))
    raw = (found.get_item(tag) for tag in [*found.file_meta.keys(), *found.keys()] if tag in found)
    values = [(one.value_tell, one.length) for one in raw if hasattr(one, "value_tell")]
    return [(start, length) for start, length in values if 0 < length < 200]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the file with bytes flipped, cut or repeated, or a value of its header replaced."""
    mutant = bytearray(data)
    values = find_values(data)
    kind = rng.integers(5)
    low, high = sorted(int(x) for x in rng.integers(0, len(data), 2))
    if kind == 0:
        del mutant[high:]
    elif kind == 1:
        del mutant[low : low + int(rng.integers(1, 64))]
    elif kind == 2:
        mutant[low:low] = mutant[low : low + int(rng.integers(1, 64))]
    elif kind == 3 and values:
        for start, length in rng.permutation(values)[: rng.integers(1, 3)]:
            filler = EXTREMES[rng.integers(len(EXTREMES))]
            mutant[start : start + length] = (filler * int(length))[:length]
    else:
        reach = int(rng.choice([400, len(data)]))  # headers matter most
        for position in rng.integers(0, min(reach, len(data)), int(rng.integers(1, 9))):
            mutant[position] = rng.choice([0, 0x7F, 0xFF, int(rng.integers(256))])
    return bytes(mutant)


def mutate_entry(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a zip of which one file is a mutant."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [archive.read(name) for name in archive.namelist()]
    chosen = int(rng.integers(len(files)))
    files[chosen] = mutate(files[chosen], rng)
    return zip_files(*files)


@contextmanager
def limit_resources() -> Iterator[None]:
    start = time.process_time()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MAX_UNPACKED + 100 * MB
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_end_in_a_volume_or_a_sentence(kind):
    whole = KINDS[kind]()
    read_volume(whole)
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    is_zip = whole[:4] == b"PK\3\4" and whole[128:132] != b"DICM"
    outcomes = set()
    for turn in range(MUTANTS):
        mutant = (mutate_entry if is_zip and turn % 4 else mutate)(whole, rng)
        with limit_resources():
            try:
                volume = read_volume(mutant)
            except ScanError as error:
                assert re.fullmatch(r"[^\n]+\.", str(error)), error
                outcomes.add("refused")
            else:
                assert volume.data.ndim == 3 and len(volume) > 0
                assert not np.isinf(volume.data).any()
                assert all(re.fullmatch(r"[^\n]+\.", note) for note in volume.notes)
                outcomes.add("read")
    assert outcomes == {"read", "refused"}


PRIVATE_SEQUENCE = b"\x29\0\x11\x10SQ\0\0\xff\xff\xff\xff"
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)
FULL_ITEM = ITEM + b"\x0c\x27\0\0" + b"\x29\0\x12\x10OB\0\0\x00\x27\0\0" + bytes(9984)
LONG_HEADERS: dict[str, tuple[bytes, bytes, int, bytes]] = {
    "many items": (PRIVATE_SEQUENCE, ITEM + bytes(4), 200_000, END),
    "many attributes": (b"", b"\x29\0\x11\x10US\0\0", 200_000, b""),
    "values of 20 MB": (b"", b"\x28\0\x50\x10DS\x10\x27" + b"1\\" * 5000, 2100, b""),
    "items of 20 MB": (PRIVATE_SEQUENCE, FULL_ITEM, 2100, END),
}


@pytest.mark.parametrize("name", LONG_HEADERS)
def test_a_long_header_is_read_to_its_limit(name, monkeypatch):
    monkeypatch.setattr("core.scan.dicom.header.MAX_READS", 100_000)
    start, repeated, count, end = LONG_HEADERS[name]
    data = build()
    place = data.index(b"\x28\0\x02\0US")
    data = data[:place] + start + repeated * count + end + data[place:]
    with limit_resources():
        assert re.search("header is too large|damaged", get_refusal(read_volume, data))
