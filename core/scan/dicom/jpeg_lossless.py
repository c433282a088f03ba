"""Decoder of JPEG Lossless (ITU-T T.81, process 14), the usual compression of hospital archives.

In numpy because of the two C libraries considered one crashed the process on damaged files and the
other is under the GPL. Code lengths are looked up at all bits of the stream at once, which leaves
one cheap step per pixel to Python: 10 ms for 256 x 256 pixels.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import cycle, islice

import numpy as np

from core.scan.dicom.jpeg_stream import FRAMES, START_OF_SCAN, segments

CHUNK_BYTES = 1 << 17  # bytes of the stream that are looked up at once
LOSSLESS_FRAME, HUFFMAN_TABLES, RESTART_INTERVAL = 0xC3, 0xC4, 0xDD
# The prediction from the pixels left, above, and above left (table H.1)
PREDICTORS: dict[int, Callable[[int, int, int], int]] = {
    1: lambda a, b, c: a,
    2: lambda a, b, c: b,
    3: lambda a, b, c: c,
    4: lambda a, b, c: a + b - c,
    5: lambda a, b, c: a + ((b - c) >> 1),
    6: lambda a, b, c: b + ((a - c) >> 1),
    7: lambda a, b, c: (a + b) >> 1,
}


def decode(stream: bytes) -> np.ndarray:
    """Decode one stream to (rows, columns, components) uint16.

    The size is the stream's own: check it with `frame_size` first.

    Raises:
        Exception: of any kind, where the stream is damaged or uses what DICOM does not.
    """
    tables: dict[int, np.ndarray] = {}
    interval = 0
    for marker, body, end in segments(stream):
        if marker == HUFFMAN_TABLES:
            tables |= _parse_tables(body)
        elif marker == RESTART_INTERVAL:
            interval = int.from_bytes(body, "big")
        elif marker == LOSSLESS_FRAME:
            precision, rows, columns, components = struct.unpack(">BHHB", body[:6])
        elif marker in FRAMES:
            raise ValueError("not a lossless JPEG stream")
        elif marker == START_OF_SCAN:
            entropy = stream[end:]
            break
    if body[0] != components:
        raise ValueError("components in scans of their own")
    used = [tables[body[2 + 2 * n] >> 4] for n in range(components)]
    predictor, shift = body[1 + 2 * components], body[-1] & 15
    after = re.search(rb"\xff[^\x00\xff\xd0-\xd7]", entropy)
    strips = re.split(rb"\xff[\xd0-\xd7]", entropy[: after.start() if after else None])
    height = interval // columns or rows  # a restart begins a picture of its own
    picture = np.empty((rows, columns, components), dtype=np.uint16)
    for top in range(0, rows, height):
        part = picture[top : top + height]
        bits = strips[top // height].replace(b"\xff\0", b"\xff")
        differences = _decode_differences(bits, used, part.size).reshape(part.shape)
        differences[0, 0] += 1 << (precision - shift - 1)
        part[:] = _undo_prediction(differences, predictor) << shift
    return picture


def _parse_tables(body: bytes) -> dict[int, np.ndarray]:
    """Parse Huffman tables by number: length and category of each 16 bits, (2, 65536) uint8."""
    found = {}
    while body:
        counts = list(body[1:17])
        end = 17 + sum(counts)
        lengths = np.repeat(np.arange(1, 17), counts)
        codes = np.stack([lengths, np.frombuffer(body[17:end], np.uint8)])
        if codes[1].max() > 16:
            raise ValueError("a difference of more than 16 bits")
        filled = np.repeat(codes, 1 << (16 - lengths), axis=1)
        table = np.zeros((2, 1 << 16), dtype=np.uint8)
        table[:, : filled.shape[1]] = filled
        found[body[0] & 15] = table
        body = body[end:]
    return found


def _decode_differences(bits: bytes, tables: list[np.ndarray], total: int) -> np.ndarray:
    """Decode the first `total` differences of an unstuffed stream, components in turn: int64."""
    length, category = (np.stack([table[n] for table in tables]) for n in (0, 1))
    advance = length + np.where(category < 16, category, 0).astype(np.uint8)
    found = np.empty(total, dtype=np.int64)
    done = bit = 0
    while done < total:
        first = bit // 8
        chunk = np.frombuffer(bits[first : first + CHUNK_BYTES + 8] + bytes(8), np.uint8)
        octets = chunk.astype(np.uint32)
        words = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
        windows = (words[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)).ravel() & 0xFFFF
        end = 8 * min(len(bits) - first, CHUNK_BYTES)
        steps = [row[windows].tobytes() for row in advance]
        position, starts = bit - 8 * first, []
        for step in islice(cycle(steps), done % len(steps), done % len(steps) + total - done):
            if position >= end:
                break
            starts.append(position)
            position += step[position]
        if not starts:
            raise ValueError("the stream ends early")
        at = np.array(starts)
        component = np.arange(done, done + at.size) % len(steps)
        size, code = (x[component, windows[at]].astype(np.int64) for x in (category, length))
        if not code.all():
            raise ValueError("no such code")
        found[done : done + at.size] = _extend_sign(
            windows[at + code].astype(np.int64) >> (16 - size), size
        )
        done, bit = done + at.size, 8 * first + position
    return found


def _extend_sign(value: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Convert `size` bits each to differences; a leading 0 means negative (table H.2)."""
    negative = value < (1 << size >> 1)
    return np.where(size == 16, 1 << 15, value - np.where(negative, (1 << size) - 1, 0))


def _undo_prediction(differences: np.ndarray, predictor: int) -> np.ndarray:
    """Return pixels modulo 2^16 from differences (rows, columns, components)."""
    rule = PREDICTORS[predictor]
    rows, _, components = differences.shape
    values = differences.copy()
    values[:, 0] = values[:, 0].cumsum(axis=0)
    if predictor == 1:  # nearly always, and no loop
        return values.cumsum(axis=1) & 0xFFFF
    values[0] = values[0].cumsum(axis=0)
    for n in range(components):
        above = (values[0, :, n] & 0xFFFF).tolist()
        for row in range(1, rows):
            left = int(values[row, 0, n]) & 0xFFFF
            line = [left]
            corners = zip(above[1:], above, differences[row, 1:, n].tolist(), strict=False)
            for up, corner, difference in corners:
                left = (rule(left, up, corner) + difference) & 0xFFFF
                line.append(left)
            values[row, :, n] = above = line
    return values & 0xFFFF
