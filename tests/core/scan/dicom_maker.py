"""DICOM files for the tests: any photometric, bit depth and transfer syntax."""

from __future__ import annotations

import base64
import heapq
import io
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (
    f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".1.99", ".2")
)
RLE = "1.2.840.10008.1.2.5"
JPEG, EXTENDED, PROCESS_14, LOSSLESS, LS, NEAR_LS, LOSSLESS_2000, JPEG_2000 = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)
)
MR = "1.2.840.10008.5.1.4.1.1.4"


def build_data_set(stored: np.ndarray, bits: int = 0, **attributes: Any) -> Dataset:
    """Build an MR image of `stored` values (H, W), (H, W, 3), or (S, H, W) with NumberOfFrames."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MR, "1.2.3.4"
    ds.PatientName, ds.PatientID = "Nobody^Secret", "SECRET-17"
    ds.Modality = "MR"
    ds.SeriesInstanceUID = "1.2.3"
    is_colour = stored.shape[-1] == 3
    ds.SamplesPerPixel = 3 if is_colour else 1
    ds.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = stored.shape[-3:-1] if is_colour else stored.shape[-2:]
    ds.BitsAllocated = 8 * stored.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bad headers are made on purpose
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return ds


def encode_native(ds: Dataset, stored: np.ndarray, syntax: str = EXPLICIT) -> bytes:
    """Return a file with uncompressed pixels."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    ds.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    ds.PixelData += b"\0" * (len(ds.PixelData) % 2)
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 and syntax != IMPLICIT else "OW"
    return save_to_bytes(ds, syntax)


def encode_compressed(ds: Dataset, frames: list[bytes], syntax: str) -> bytes:
    """Return a file of compressed frames."""
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return save_to_bytes(ds, syntax)


def save_to_bytes(ds: Dataset, syntax: str) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bad headers are made on purpose
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def strip_preamble(ds: Dataset, stored: np.ndarray, implicit: bool) -> bytes:
    """Return the data set alone, as old archives store it: no preamble, no prefix, no file meta."""
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def encode_by_pydicom(stored: np.ndarray, syntax: str, bits: int = 0, **options: Any) -> bytes:
    """Encode one frame by pydicom: RLE and JPEG-LS."""
    encoder = get_encoder(UID(syntax))
    ds = build_data_set(stored, bits)
    return bytes(
        encoder.encode(
            stored,
            rows=ds.Rows,
            columns=ds.Columns,
            samples_per_pixel=ds.SamplesPerPixel,
            number_of_frames=1,
            bits_allocated=ds.BitsAllocated,
            bits_stored=ds.BitsStored,
            pixel_representation=ds.PixelRepresentation,
            photometric_interpretation=ds.PhotometricInterpretation,
            **({"planar_configuration": 0} if ds.SamplesPerPixel > 1 else {}),
            **options,
        )
    )


def encode_by_pillow(stored: np.ndarray, file_format: str, **options: Any) -> bytes:
    """Encode one frame by Pillow: JPEG and JPEG 2000."""
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_lossless_jpeg(
    stored: np.ndarray, bits: int = 16, predictor: int = 1, restart: int = 0, shift: int = 0
) -> bytes:
    """Encode one frame (H, W) or (H, W, C) of unsigned values in JPEG Lossless (T.81).

    Args:
        stored: the values.
        bits: precision.
        predictor: 1 to 7.
        restart: rows from one restart marker to the next; 0 for none.
        shift: point transform: how many low bits are dropped.
    """
    values = stored.reshape(*stored.shape[:2], -1).astype(np.int64) >> shift
    rows, columns, components = values.shape
    height = restart or rows
    strips = [values[top : top + height] for top in range(0, rows, height)]
    symbols = [_symbols(strip, predictor, 1 << (bits - shift - 1)) for strip in strips]
    codes = _huffman(Counter(size for strip in symbols for size, _ in strip))
    by_length = sorted(codes, key=lambda size: (len(codes[size]), codes[size]))
    counts = bytes(sum(len(code) == n for code in codes.values()) for n in range(1, 17))
    ids = range(1, components + 1)
    stream = b"\xff\xd8"
    stream += _segment(0xC4, b"\0" + counts + bytes(by_length))
    frame = b"".join(bytes((n, 0x11, 0)) for n in ids)
    stream += _segment(0xC3, struct.pack(">BHHB", bits, rows, columns, components) + frame)
    if restart:
        stream += _segment(0xDD, struct.pack(">H", restart * columns))
    scan = b"".join(bytes((n, 0)) for n in ids)
    stream += _segment(0xDA, bytes((components,)) + scan + bytes((predictor, 0, shift)))
    for n, strip in enumerate(symbols):
        word = "".join(codes[size] + extra for size, extra in strip)
        word += "1" * (-len(word) % 8)
        packed = int(word, 2).to_bytes(len(word) // 8, "big").replace(b"\xff", b"\xff\0")
        stream += packed + (bytes((0xFF, 0xD0 + n % 8)) if n < len(symbols) - 1 else b"")
    return stream + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _symbols(values: np.ndarray, predictor: int, start: int) -> list[tuple[int, str]]:
    """Return category and extra bits of each difference, components in turn."""
    rules: dict[int, Callable[[int, int, int], int]] = {
        1: lambda left, up, corner: left,
        2: lambda left, up, corner: up,
        3: lambda left, up, corner: corner,
        4: lambda left, up, corner: left + up - corner,
        5: lambda left, up, corner: left + (up - corner) // 2,
        6: lambda left, up, corner: up + (left - corner) // 2,
        7: lambda left, up, corner: (left + up) // 2,
    }
    found = []
    for row, column, component in np.ndindex(values.shape):
        plane = values[:, :, component]
        if row == 0:
            predicted = plane[0, column - 1] if column else start
        elif column == 0:
            predicted = plane[row - 1, 0]
        else:
            left, up = plane[row, column - 1], plane[row - 1, column]
            predicted = rules[predictor](left, up, plane[row - 1, column - 1])
        difference = (int(plane[row, column]) - int(predicted) + 32767) % 65536 - 32767
        size = abs(difference).bit_length()
        bits = difference if difference > 0 else difference + (1 << size) - 1
        found.append((size, f"{bits:0{size}b}" if 0 < size < 16 else ""))
    return found


def _huffman(counts: Counter[int]) -> dict[int, str]:
    """Build canonical codes, none of ones alone, which JPEG forbids."""
    heap = [(count, symbol, [symbol]) for symbol, count in counts.items()]
    heap.append((0, 99, [99]))  # takes the code of ones alone
    heapq.heapify(heap)
    lengths: Counter[int] = Counter()
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        lengths.update(a[2] + b[2])
        heapq.heappush(heap, (a[0] + b[0], min(a[1], b[1]), a[2] + b[2]))
    codes, code, last = {}, 0, 0
    for symbol in sorted(lengths, key=lambda s: (lengths[s], s)):
        code <<= lengths[symbol] - last
        last = lengths[symbol]
        codes[symbol] = f"{code:0{last}b}"
        code += 1
    del codes[99]
    return codes


# Of rows r and columns c, 32 x 40, by another program (GDCM 3.2.6), 12 bits:
# 60 r + 3 c (r mod 2) in JPEG Lossless, and the same minus 1000 in JPEG 2000, signed
FOREIGN_LOSSLESS = base64.b64decode(
    "/9j/wwALEAAgACgBAREA/8QAFwABAQEBAAAAAAAAAAAAAAAAAAIGEP/aAAgBAQABAADgAAAAABvLu7u7u7u7u7u7u7u7"
    "u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d3d3d3d3d3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AAAAAAN5d3"
    "d3d3d3d3d3d3d3d3d3d3d3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d3d3d3d3d"
    "3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d3d3d3d3d3d3vAAAAAABvLu7u7u7u7"
    "u7u7u7u7u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d3d3d3d3d3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AA"
    "AAAAN5d3d3d3d3d3d3d3d3d3d3d3d3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d"
    "3d3d3d3d3d3vAAAAAABvLu7u7u7u7u7u7u7u7u7u7u7u7u94AAAAAAN5d3d3d3d3d3d3d3d3d3d3d3d3d3//2Q=="
)
FOREIGN_SIGNED_2000 = base64.b64decode(
    "/0//UQApAAAAAAAoAAAAIAAAAAAAAAAAAAAAKAAAACAAAAAAAAAAAAABjwEB/1IADAAAAAEABAQEAAH/XAAQQICIiJCI"
    "iJCIiJCIiJD/ZAAqAAFDcmVhdGVkIGJ5IEdEQ00vT3BlbkpQRUcgdmVyc2lvbiAyLjMuMP+QAAoAAAAAATYAAf+TwH7B"
    "IAaRjzzCCIQp8sAAEMA/YGANCzuapYffwAB8IcAfmDgnOX8DgAo9m5mHwAA6HAD8AoBA4+tH6DgoUgTAPD8/wAA6RAD8"
    "LOgAA6IAdC3cMW3n5uC3OB1jETgjlmgaw6oykPEzQBgQVE2fG1aruqtqa2pQ48WHxVKILSDkVH0vjHK/E8+jvjHIu4a+"
    "i7xkiR11dEVN8HmmwdIags2VMVXAm13KxLWUEJnAm13KxLWUEJnAm13LCtEfubrUW+C0qgkoKJI2urhOt9bS8rQfE631"
    "tLq2l6JTek631tLq2l7DhIniyn4yn4yrEWkzt3m+b5vm+b5vnHGMDYbDYbDYbDYDcoNhsNhsNhsNhi7oNhsNhsNhsNiZ"
    "ZAWprH8kWz581H0OK3Qt33n/2Q=="
)


def compute_foreign_values() -> np.ndarray:
    """Return the values in `FOREIGN_LOSSLESS`: (32, 40) uint16."""
    row, column = np.mgrid[:32, :40]
    return (60 * row + 3 * column * (row % 2)).astype(np.uint16)
