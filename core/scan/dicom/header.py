"""Header of a DICOM file, without any personal data."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from core.scan.errors import MAX_UNPACKED, MB, ScanError, check_volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_HEADER = 16 * MB  # all before the pixels; 2,000 frames with their own geometry take 5 MB
UNDEFINED_LENGTH = 0xFFFFFFFF  # the length of compressed pixels
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (
    f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".1.99", ".2")
)
RLE = "1.2.840.10008.1.2.5"
JPEG, EXTENDED, PROCESS_14, LOSSLESS, LS, NEAR_LS, LOSSLESS_2000, JPEG_2000 = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)
)
# Named, so that no other installed decoder is tried: one of them crashes the process on a damaged
# file.
PLUGINS = {
    JPEG: "pillow",
    EXTENDED: "pillow",
    LOSSLESS_2000: "pillow",
    JPEG_2000: "pillow",
    LS: "pyjpegls",
    NEAR_LS: "pyjpegls",
}
COMPRESSED = {RLE, PROCESS_14, LOSSLESS, *PLUGINS}
READABLE = {IMPLICIT, EXPLICIT, BIG_ENDIAN, *COMPRESSED}
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
# The only attributes that are read: none of the patient, the doctor or the hospital
KEYWORDS = """\
    Modality SeriesInstanceUID InstanceNumber NumberOfFrames BurnedInAnnotation
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns
    BitsAllocated BitsStored PixelRepresentation RescaleSlope RescaleIntercept ModalityLUTSequence
    WindowCenter WindowWidth VOILUTSequence PixelSpacing SliceThickness SpacingBetweenSlices
    ImageOrientationPatient ImagePositionPatient
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableDescriptor BluePaletteColorLookupTableData"""


class Pixels(NamedTuple):
    """Position of a file's pixels and the type that they are stored as."""

    keyword: str
    vr: str
    start: int
    length: int

    @property
    def are_compressed(self) -> bool:
        """True for compressed pixels, which come in parts without a total length."""
        return self.length == UNDEFINED_LENGTH


@dataclass(frozen=True)
class Header:
    """Header fields, read before the pixels."""

    ds: Dataset
    syntax: str  # transfer syntax
    pixels: Pixels
    frames: int
    shape: tuple[int, int]  # rows, columns

    @property
    def photometric(self) -> str:
        """Photometric interpretation: the meaning of the pixels as colour or grey."""
        return str(self.ds.PhotometricInterpretation)

    @property
    def is_display_ready(self) -> bool:
        """True where the values are display grey levels: at most 8 bits, and no units."""
        has_units = "ModalityLUTSequence" in self.ds or self.rescale(0) != (1, 0)
        is_byte = self.ds.get("BitsStored", 16) <= 8 and not self.ds.get("PixelRepresentation")
        return self.photometric in COLOUR or (is_byte and not has_units)

    def rescale(self, frame: int) -> tuple[float, float]:
        """Return slope and intercept from stored values to the file's units."""
        found = self.group(frame, "PixelValueTransformationSequence")
        return float(found.get("RescaleSlope") or 1), float(found.get("RescaleIntercept") or 0)

    def numbers(self, keyword: str, count: int = 0, frame: int = 0, group: str = "") -> list[float]:
        """Return an attribute's values; [] if it is missing, malformed, or not `count` numbers."""
        try:
            value = self.group(frame, group).get(keyword)
            found = np.atleast_1d(np.asarray(value, dtype=np.float64))
        except (ValueError, TypeError):  # a malformed attribute must not refuse a good picture
            return []
        is_good = bool(np.isfinite(found).all()) and found.size == (count or found.size)
        return [float(x) for x in found] if is_good else []

    def group(self, frame: int, name: str) -> Dataset:
        """Find a frame's attributes: in its own group, the shared one, or the file."""
        shared = self.ds.get("SharedFunctionalGroupsSequence") or []
        for groups in ((self.ds.get("PerFrameFunctionalGroupsSequence") or [])[frame:], shared):
            found = groups[0].get(name) if groups else None
            if found:
                return cast("Dataset", found[0])
        return self.ds


def read_header(data: bytes) -> Header:
    """Read a file's header and check that its pixels can be read, as far as the header tells.

    Raises:
        ScanError: no pixels, unknown compression or colours, or above the limits.
        Exception: of any kind, where the file is damaged.
    """
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    body, start, syntax = data_set(data)
    file = io.BytesIO(body[:MAX_HEADER])
    file.seek(start)
    found: list[Pixels] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXELS:
            found.append(Pixels(PIXELS[tag], vr or "OW", file.tell(), length))
        return tag in PIXELS

    ds = read_dataset(
        file,
        is_implicit_VR=syntax == IMPLICIT,
        is_little_endian=syntax != BIG_ENDIAN,
        stop_when=at_pixels,
        specific_tags=[Tag(keyword) for keyword in KEYWORDS.split()],
    )
    if not found:
        raise ScanError(
            "The DICOM file contains no picture (it may be a report, a plan or a DICOMDIR): "
            "send the image files."
        )
    frames, shape = int(ds.get("NumberOfFrames") or 1), (int(ds.Rows), int(ds.Columns))
    header = Header(ds, syntax, found[-1], frames, shape)
    is_known = syntax in READABLE and not (syntax == EXTENDED and ds.BitsStored != 8)
    if not is_known or found[-1].are_compressed != (syntax in COMPRESSED):
        raise ScanError(
            "The DICOM file uses a compression that cannot be read here: "
            "export it uncompressed, or as JPEG Lossless, JPEG-LS or JPEG 2000."
        )
    if header.photometric not in GREY + COLOUR or ds.get("BitsAllocated", 16) % 8:
        raise ScanError(
            "The DICOM file contains neither grey values nor usual colours: "
            "export it as a greyscale (MONOCHROME2) image."
        )
    check_volume(header.frames, *header.shape)
    return header


def data_set(data: bytes) -> tuple[bytes, int, str]:
    """Return the data set's bytes, inflated if needed, its start, and its transfer syntax."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data[:MAX_HEADER])
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID") or IMPLICIT)  # read_dataset notices explicit ones
    if syntax != DEFLATED:
        return data, file.tell(), syntax
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(data[file.tell() :], MAX_UNPACKED)
    if inflater.unconsumed_tail:
        raise ScanError("The DICOM file unpacks to more than 1 GB: export it in smaller parts.")
    return body, 0, EXPLICIT
