"""Decoder of DICOM's run-length coding (PS3.5 annex G), with bounded output."""

from __future__ import annotations

import struct

import numpy as np


def decode(stream: bytes, rows: int, columns: int, samples: int, width: int) -> np.ndarray:
    """Decode one frame of `width`-byte values to (rows, columns, samples), unsigned.

    Raises:
        ValueError: the stream holds other segments than those of such a picture, or shorter ones.
    """
    count, *starts = struct.unpack("<16L", stream[:64])
    if count != samples * width:
        raise ValueError(f"{samples * width} segments expected, got {count}")
    ends = [*starts[1:count], len(stream)]
    size = rows * columns
    planes = [_unpack(stream[a:b], size) for a, b in zip(starts[:count], ends, strict=True)]
    joined = np.frombuffer(b"".join(planes), np.uint8).reshape(samples, width, rows, columns)
    whole = np.ascontiguousarray(joined.transpose(2, 3, 0, 1))  # most significant byte first
    return whole.view(f">u{width}")[..., 0]


def _unpack(packed: bytes, size: int) -> bytes:
    out = bytearray()
    position = 0
    while len(out) < size:
        if position >= len(packed):
            raise ValueError("the stream ends early")
        count = packed[position]
        if count < 128:
            out += packed[position + 1 : position + 2 + count]
            position += count + 2
        else:  # 128 is no run at all
            out += packed[position + 1 : position + 2] * ((257 - count) % 129)
            position += 2 - (count == 128)
    return bytes(out[:size])
