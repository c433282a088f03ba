"""A DICOM file may begin as any other file does: it is read as DICOM, and never as the other."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from dicom_maker import EXPLICIT, build_data_set, encode_native, save_to_bytes
from PIL import Image
from refusals import get_refusal

from core.scan import read_volume

PICTURE = np.add.outer(np.arange(36) * 50, np.arange(44) * 30).astype(np.uint16)
OTHER = np.add.outer(np.arange(40) * 3, np.arange(32) * 4).astype(
    np.uint8
)  # shown by the other kind


def build_dicom(preamble: bytes = b"", has_pixels: bool = True) -> bytes:
    ds = build_data_set(PICTURE, 12)
    data = encode_native(ds, PICTURE) if has_pixels else save_to_bytes(ds, EXPLICIT)
    return preamble.ljust(128, b"\0") + data[128:]


def encode_other(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(OTHER).save(buffer, file_format)
    return buffer.getvalue()


def hide_in_png(dicom: bytes) -> bytes:
    """Put all from the preamble on into a chunk of text."""
    png = encode_other("PNG")
    text = dicom[41:]
    check = struct.pack(">L", zlib.crc32(b"teXt" + text))
    return png[:33] + struct.pack(">L", len(text)) + b"teXt" + text + check + png[33:]


def hide_in_jpeg(dicom: bytes) -> bytes:
    """Put all from the preamble on into a comment."""
    comment = dicom[6:]
    jpeg = encode_other("JPEG")
    return b"\xff\xd8\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def hide_in_tiff(dicom: bytes) -> bytes:
    """Append the directory and the strip of a TIFF: a file of two personalities (PS3.10, 7.1)."""
    start = len(dicom)
    height, width = OTHER.shape
    strip = start + 2 + 12 * 8 + 4
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, strip)]
    tags += [(278, height), (279, OTHER.size)]
    directory = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<L", start)
    count = struct.pack("<H", len(tags))
    return head + dicom[8:] + count + directory + bytes(4) + OTHER.tobytes()


def hide_in_bmp(dicom: bytes) -> bytes:
    """Append the pixels, to which the header in the preamble points."""
    size = struct.pack("<LLLL", 0, 0, len(dicom), 40)
    about = struct.pack("<llHHLLllLL", 32, 40, 1, 24, 0, 0, 0, 0, 0, 0)
    pixels = np.repeat(OTHER[::-1, :, None], 3, axis=-1).tobytes()
    return b"BM" + size + about + dicom[18 + len(about) :] + pixels


def hide_in_zip(dicom: bytes) -> bytes:
    """Append a zip, which is read from its end."""
    buffer = io.BytesIO(b"PK\3\4" + dicom[4:])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("other", encode_other("PNG"))
    return buffer.getvalue()


def hide_in_gzip(dicom: bytes) -> bytes:
    """Put all from the preamble on into the header's extra field."""
    extra = dicom[12:]
    packed = gzip.compress(OTHER.tobytes())
    return packed[:3] + b"\x04" + packed[4:10] + struct.pack("<H", len(extra)) + extra + packed[10:]


def show_picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def show_zip(data: bytes) -> np.ndarray:
    return show_picture(zipfile.ZipFile(io.BytesIO(data)).read("other"))


def show_gzip(data: bytes) -> np.ndarray:
    return np.frombuffer(gzip.decompress(data), dtype=np.uint8).reshape(OTHER.shape)


Hide, Show = Callable[[bytes], bytes], Callable[[bytes], np.ndarray]
KINDS: dict[str, tuple[Hide, Show]] = {
    "PNG": (hide_in_png, show_picture),
    "JPEG": (hide_in_jpeg, show_picture),
    "TIFF": (hide_in_tiff, show_picture),
    "BMP": (hide_in_bmp, show_picture),
    "zip": (hide_in_zip, show_zip),
    "gzip": (hide_in_gzip, show_gzip),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_polyglots_are_files_of_two_kinds(kind):
    hide, show = KINDS[kind]
    difference = np.abs(show(hide(build_dicom())).astype(int) - OTHER)
    assert difference.max() <= (4 if kind == "JPEG" else 0)


def forbid_others(monkeypatch) -> None:
    """Make every decoder but that of DICOM fail."""

    def refuse(*args, **options):
        raise AssertionError("read as another kind of file")

    for name in ("PIL.Image.open", "zipfile.ZipFile", "gzip.GzipFile"):
        monkeypatch.setattr(name, refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_dicom_and_another_kind_in_one_is_dicom(kind, monkeypatch):
    data = KINDS[kind][0](build_dicom())
    forbid_others(monkeypatch)
    volume = read_volume(data)
    assert volume.kind == "DICOM"
    assert np.array_equal(volume.data, PICTURE[None])
    assert volume.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_dicom_is_broken_the_other_is_not_read_either(kind, monkeypatch):
    data = KINDS[kind][0](build_dicom(has_pixels=False))
    forbid_others(monkeypatch)
    assert "DICOM" in get_refusal(read_volume, data)


@pytest.mark.parametrize("preamble", [b"Export of 2024", b"MZ", b"\x7fELF", b"II*\0", b"MM\0*"])
def test_the_preamble_is_not_looked_at(preamble):
    assert np.array_equal(read_volume(build_dicom(preamble)).data, PICTURE[None])
