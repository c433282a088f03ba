"""Slices of one DICOM file, decompressed and in the units that it declares."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from core.scan.dicom.codecs import PLUGIN, find_decoder
from core.scan.dicom.header import BIG_ENDIAN, COMPRESSED, EXPLICIT, GREY, RLE, Header, data_set
from core.scan.dicom.jpeg_stream import frame_size
from core.scan.dicom.palette import read_palette
from core.scan.errors import MAX_SLICES, ScanError, damage_error, not_numbers_error
from core.scan.image import to_grey


def read_frames(header: Header, data: bytes, any_picture: bool) -> Iterator[np.ndarray]:
    """Yield each slice (H, W) float32: rescaled values, or grey levels 0 to 255 of colours.

    Raises:
        ScanError: fewer slices than declared, or infinite values.
        NotAnMRIError: a colour photograph, unless `any_picture`.
        Exception: of any kind, where the pixels are damaged.
    """
    from pydicom.pixels import apply_modality_lut

    if header.photometric == "PALETTE COLOR":
        colours, first = read_palette(header.ds)
    count = 0
    for count, encoded in enumerate(_split_frames(header, data), start=1):
        stored = _decode(header, encoded)
        if header.photometric in GREY:
            slope, intercept = header.rescale(count - 1)
            if "ModalityLUTSequence" in header.ds:
                stored, slope, intercept = apply_modality_lut(stored, header.ds), 1, 0
            with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported below
                values = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
        else:
            if header.photometric == "PALETTE COLOR":
                rgb = colours[np.clip(stored.astype(np.int64) - first, 0, len(colours) - 1)]
            else:
                rgb = (stored >> max(0, int(header.ds.BitsStored) - 8)).astype(np.uint8)
            values = to_grey(Image.fromarray(rgb), any_picture)
        if np.isinf(values).any():
            raise not_numbers_error()
        yield values
    if count < header.frames:
        raise _incomplete_error(header, count)


def _split_frames(header: Header, data: bytes) -> Iterator[bytes]:
    """Yield the stored bytes of each frame, compressed or not."""
    from pydicom.encaps import generate_frames

    body = data_set(data)[0]
    start, size = header.pixels.start, header.pixels.frame_bytes
    if not header.pixels.are_compressed:
        held = min(header.pixels.length, len(body) - start) // size
        if held < header.frames:
            raise _incomplete_error(header, held)
        yield from (body[start + n * size : start + (n + 1) * size] for n in range(header.frames))
        return
    table = int.from_bytes(body[start + 4 : start + 8], "little")  # of frame offsets
    if table > 4 * MAX_SLICES or body.count(b"\xfe\xff\x00\xe0", start) > 100 * MAX_SLICES:
        raise damage_error()
    file = io.BytesIO(body)
    file.seek(start)
    yield from islice(generate_frames(file, number_of_frames=header.frames), header.frames)


def _decode(header: Header, encoded: bytes) -> np.ndarray:
    """Decode one frame to stored values (H, W) or RGB (H, W, 3)."""
    from pydicom.encaps import encapsulate

    ds, syntax = header.ds, header.syntax
    allocated = int(ds.BitsAllocated)
    if not header.pixels.are_compressed:
        syntax = BIG_ENDIAN if syntax == BIG_ENDIAN else EXPLICIT
    elif syntax != RLE and frame_size(encoded) != header.shape:
        raise damage_error()
    else:
        encoded = encapsulate([encoded])
    options: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": header.shape[0],
        "columns": header.shape[1],
        "samples_per_pixel": int(ds.SamplesPerPixel),
        "planar_configuration": ds.get("PlanarConfiguration") or 0,
        "photometric_interpretation": header.photometric,
        "bits_allocated": allocated,
        "bits_stored": allocated,
        "pixel_representation": ds.get("PixelRepresentation") or 0,
        "pixel_keyword": header.pixels.keyword,
        "pixel_vr": header.pixels.vr,
    }
    plugin = PLUGIN if header.pixels.are_compressed else ""
    decoder = find_decoder(syntax)
    values = decoder.as_array(encoded, index=0, decoding_plugin=plugin, **options)[0]
    return _keep_stored_bits(header, values) if values.dtype.kind in "iu" else values


def _keep_stored_bits(header: Header, values: np.ndarray) -> np.ndarray:
    """Return the stored bits alone, with their sign: others may hold overlays (PS3.5 8.1.1)."""
    width = 8 * values.itemsize
    stored = int(header.ds.BitsStored)
    high = int(header.ds.get("HighBit", stored - 1))
    if header.syntax in COMPRESSED - {RLE}:  # whose streams begin at the lowest bit
        high = stored - 1
    if not 0 < stored <= high + 1 <= width:
        high, stored = width - 1, width
    return values << (width - 1 - high) >> (width - stored)


def _incomplete_error(header: Header, held: int) -> ScanError:
    return ScanError(
        f"The DICOM file is incomplete: it declares {header.frames} slices of "
        f"{header.shape[1]} x {header.shape[0]} pixels and contains {held}: send it again."
    )
