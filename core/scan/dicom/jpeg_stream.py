"""Size of a JPEG, JPEG-LS or JPEG 2000 picture, read from the stream before decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator

START_OF_SCAN = 0xDA
END_OF_IMAGE = b"\xff\xd9"
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers


def segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of each segment of a JPEG stream.

    Raises:
        ValueError: something else stands where a marker must be.
    """
    position = 2
    while position + 4 <= len(stream):
        if stream[position] != 0xFF:
            raise ValueError("a JPEG marker is missing")
        if stream[position + 1] == 0xFF:  # markers may be padded in front
            position += 1
            continue
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        yield stream[position + 1], stream[position + 4 : end], end
        position = end


def frame_size(stream: bytes) -> tuple[int, int]:
    """Read the rows and columns that the stream declares.

    Raises:
        ValueError: it declares none.
    """
    if not stream.startswith(b"\xff\xd8"):
        if not stream.startswith(b"\xff\x4f\xff\x51"):
            raise ValueError("neither JPEG nor JPEG 2000")
        width, height, left, top = struct.unpack(">4L", stream[8:24])
        return height - top, width - left
    for marker, body, _ in segments(stream):
        if marker in FRAMES:
            rows, columns = struct.unpack(">2H", body[1:5])
            return rows, columns
    raise ValueError("no frame in the JPEG stream")
