"""Decoders of compressed DICOM frames: those of imagecodecs, as a plugin of pydicom.

Named, so that pydicom tries no other installed decoder: one of them crashes the process on a
damaged frame.
"""

from __future__ import annotations

import re
import struct
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from core.scan.dicom.header import EXTENDED, JPEG, JPEG_2000, LOSSLESS_2000, LS, NEAR_LS, RLE
from core.scan.dicom.jpeg_stream import END_OF_IMAGE, START_OF_SCAN, segments

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder, DecodeRunner

PLUGIN = "imagecodecs"
RUN_BYTES = 128  # the longest run of a run-length segment, which may end behind the picture
ADOBE = b"\xff\xee\x00\x0eAdobe"  # the marker that says how colours are stored
FILLER = bytes.fromhex("5aa53c996bd217e8") * 8  # bits of no meaning, without a marker
_REGISTRATION = threading.Lock()  # pydicom's own is not safe for threads


def find_decoder(syntax: str) -> Decoder:
    """Find pydicom's decoder of a transfer syntax, with this plugin where frames are compressed."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    decoder = get_decoder(UID(syntax))
    with _REGISTRATION:
        if decoder.is_encapsulated and PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
    return decoder


def is_available(syntax: str) -> bool:
    """Return True, as pydicom asks of its plugins; raise `ImportError` without imagecodecs."""
    import imagecodecs  # noqa: F401

    return True


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame to the bytes that pydicom expects of a plugin.

    Raises:
        Exception: of any kind, where the stream is damaged.
    """
    import imagecodecs

    syntax = runner.transfer_syntax
    if syntax == RLE:
        return _decode_run_lengths(stream, runner)
    if syntax in (LS, NEAR_LS):
        if not stream.rstrip(b"\0").endswith(END_OF_IMAGE):
            raise ValueError("cut off")  # the decoder would search for the end for seconds
        values = imagecodecs.jpegls_decode(stream)
    elif syntax in (LOSSLESS_2000, JPEG_2000):
        values = imagecodecs.jpeg2k_decode(stream)
        if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
            runner.set_option("photometric_interpretation", "RGB")
    else:
        values = _decode_jpeg(stream, runner)
    if values.itemsize > runner.bits_allocated // 8:
        raise ValueError("more bits than the file declares")
    runner.set_option("planar_configuration", 0)
    decoded: bytes = values.astype(runner.pixel_dtype).tobytes()
    return decoded


def _decode_jpeg(stream: bytes, runner: DecodeRunner) -> Any:
    """Decode JPEG, lossless or not; colours as stored, unless a marker of Adobe defines them.

    libjpeg fills what is missing without a word. Bits added where the stream's parts end change
    the picture exactly where it needs more bits than there are.
    """
    import imagecodecs

    options: dict[str, Any] = {}
    if runner.samples_per_pixel == 3:
        if runner.transfer_syntax in (JPEG, EXTENDED) and ADOBE in stream:
            runner.set_option("photometric_interpretation", "RGB")
        else:
            options = {"colorspace": "RGB", "outcolorspace": "RGB"}  # no conversion
    start = next(end for marker, _, end in segments(stream) if marker == START_OF_SCAN)
    if END_OF_IMAGE not in stream[start:]:
        raise ValueError("cut off")
    restarts = [marker[1] & 7 for marker in re.findall(rb"\xff[\xd0-\xd7]", stream[start:])]
    if any(b not in (0, (a + 1) % 8) for a, b in pairwise(restarts)):
        raise ValueError("a restart is missing")
    longer = re.sub(rb"\xff[\xd0-\xd9]", FILLER + rb"\g<0>", stream[start:])
    values = imagecodecs.jpeg8_decode(stream, **options)
    if not np.array_equal(values, imagecodecs.jpeg8_decode(stream[:start] + longer, **options)):
        raise ValueError("bits are missing")
    return values


def _decode_run_lengths(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode DICOM's run-length coding (PS3.5 annex G): one packed segment a byte of a value."""
    import imagecodecs

    size, width = runner.rows * runner.columns, runner.bits_allocated // 8
    count, *starts = struct.unpack("<16L", stream[:64])
    if count != runner.samples_per_pixel * width:
        raise ValueError("segments of another picture")
    planes = np.zeros((count, size + RUN_BYTES), dtype=np.uint8)  # bounds what is unpacked
    for plane, start, end in zip(planes, starts, [*starts[1:count], len(stream)], strict=False):
        if len(imagecodecs.packbits_decode(stream[start:end], out=plane)) < size:
            raise ValueError("cut off")
    runner.set_option("planar_configuration", 1)
    by_sample = planes[:, :size].reshape(-1, width, size)[:, ::-1]  # most significant byte first
    return by_sample.transpose(0, 2, 1).tobytes()
