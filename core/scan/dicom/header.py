"""Header of a DICOM file, without any personal data."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from core.scan.dicom.mosaic import PRIVATE, count_tiles
from core.scan.dicom.repair import complete_header
from core.scan.errors import MAX_UNPACKED, MB, ScanError, check_volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_HEADER = 16 * MB  # that is read; 2,000 frames with their own geometry take 5 MB
MAX_READS = 1_000_000  # of a header: each part of it takes more memory than its bytes
DIRECTORY = 4  # the group of a DICOMDIR's list of files
UNDEFINED_LENGTH = 0xFFFFFFFF  # the length of compressed pixels
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (
    f"1.2.840.10008.1.2{n}" for n in ("", ".1", ".1.99", ".2")
)
RLE = "1.2.840.10008.1.2.5"
JPEG, EXTENDED, PROCESS_14, LOSSLESS, LS, NEAR_LS, LOSSLESS_2000, JPEG_2000 = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)
)
COMPRESSED = {RLE, JPEG, EXTENDED, PROCESS_14, LOSSLESS, LS, NEAR_LS, LOSSLESS_2000, JPEG_2000}
READABLE = {IMPLICIT, EXPLICIT, BIG_ENDIAN, *COMPRESSED}
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
# Compared between files, as hashes alone: descriptions may name a patient
SERIES, STUDY = ("SeriesInstanceUID",), ("StudyInstanceUID", "FrameOfReferenceUID")
SERIES_WITHOUT_UID = (*SERIES, *STUDY, "SeriesNumber", "SeriesDescription", "ProtocolName")
WEIGHTING = ("ImageType", "ScanningSequence", "SequenceName")
# The only attributes that are kept: none of the patient, the doctor or the hospital
KEYWORDS = """\
    SOPClassUID Modality InstanceNumber NumberOfFrames BurnedInAnnotation
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    RescaleSlope RescaleIntercept ModalityLUTSequence WindowCenter WindowWidth VOILUTSequence
    PixelSpacing NominalScannedPixelSpacing ImagerPixelSpacing PixelAspectRatio
    SliceThickness SpacingBetweenSlices SliceLocation ImageOrientationPatient ImagePositionPatient
    EchoNumbers EchoTime InversionTime RepetitionTime FlipAngle DiffusionBValue
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableDescriptor BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData"""


class NoPictureError(ScanError):
    """A DICOM file that is made to hold no picture, such as a DICOMDIR or a report."""


class CutError(ScanError):
    """A DICOM image without its pixels, as an interrupted copy leaves it."""


class Pixels(NamedTuple):
    """Position of a file's pixels and the type that they are stored as."""

    keyword: str
    vr: str
    start: int
    length: int
    frame_bytes: int = 0  # of an uncompressed frame

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
    shape: tuple[int, int]  # rows, columns of a frame
    series: int  # hash of what all files of a series share
    weighting: int  # hash of what all files of a contrast share
    tiles: int = 1  # slices in each frame
    notes: tuple[str, ...] = ()  # on what was assumed, one sentence each

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
        slope, intercept = (
            self.numbers(keyword, 1, frame, "PixelValueTransformationSequence")
            for keyword in ("RescaleSlope", "RescaleIntercept")
        )
        return next(iter(slope), 0) or 1, next(iter(intercept), 0)

    def read_padding(self, frame: int) -> tuple[float, float]:
        """Read the lowest and highest padding value in the file's units; NaN for none."""
        value, limit = (
            self.numbers(keyword, 1) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        )
        if not value or self.photometric not in GREY or "ModalityLUTSequence" in self.ds:
            return math.nan, math.nan
        ends = value + (limit or value)
        if self.ds.get("PixelRepresentation"):  # often written as unsigned numbers
            size = 1 << self.ds.BitsAllocated
            ends = [(x + size // 2) % size - size // 2 for x in ends]
        slope, intercept = self.rescale(frame)
        low, high = sorted(x * slope + intercept for x in ends)
        return low, high

    @property
    def pictures(self) -> int:
        """Number of slices: those of all frames."""
        return self.frames * self.tiles

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        side = math.isqrt(self.tiles - 1) + 1
        return self.shape[0] // side, self.shape[1] // side

    def tile(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the slices of a frame: the tiles of a mosaic in rows, or the frame itself."""
        rows, columns = self.picture_shape
        for n in range(self.tiles):
            row, column = divmod(n, self.shape[1] // columns)
            yield frame[row * rows :, column * columns :][:rows, :columns]

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
        own = (self.ds.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
        for groups in (own, shared):
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
    from pydicom.uid import UID

    body, start, syntax = data_set(data)
    file = _LimitedFile(body)
    file.seek(start)
    kept = _list_tags()
    found: list[Pixels] = []
    groups: set[int] = set()

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        groups.add(tag >> 16)
        if tag in PIXELS:
            found.append(Pixels(PIXELS[tag], vr or "OW", file.tell(), length))
        elif (tag not in kept or tag >> 16 & 1) and length != UNDEFINED_LENGTH:
            file.limit += length
        return tag in PIXELS

    ds = read_dataset(
        file,
        is_implicit_VR=syntax == IMPLICIT,
        is_little_endian=syntax != BIG_ENDIAN,
        stop_when=at_pixels,
        specific_tags=list(kept),
    )
    if not found:
        has_picture = "Image Storage" in UID(ds.get("SOPClassUID") or "Image Storage").name
        raise (CutError if has_picture and DIRECTORY not in groups else NoPictureError)(
            "The DICOM file contains no picture (it may be a report, a plan or a DICOMDIR): "
            "send the image files."
        )
    notes = complete_header(ds, GREY + COLOUR, found[-1].keyword == "PixelData")
    values = int(ds.Rows * ds.Columns * ds.SamplesPerPixel)
    if ds.PhotometricInterpretation == "YBR_FULL_422":
        values = values // 3 * 2
    pixels = found[-1]._replace(frame_bytes=values * ds.BitsAllocated // 8)
    shape = int(ds.Rows), int(ds.Columns)
    frames, counted = _count_frames(ds, pixels, body)
    tiles, mosaic = count_tiles(ds, shape)
    is_known = bool(ds.get("SeriesInstanceUID"))
    series, weighting = (
        hash(tuple(str(ds.get_item(name).value) for name in names if name in ds))
        for names in (SERIES if is_known else SERIES_WITHOUT_UID, WEIGHTING)
    )
    for name in (*SERIES_WITHOUT_UID, *WEIGHTING, *PRIVATE):
        if name in ds:
            del ds[name]
    said = (*notes, *counted, *mosaic)
    header = Header(ds, syntax, pixels, frames, shape, series, weighting, tiles, said)
    if syntax not in READABLE or pixels.are_compressed != (syntax in COMPRESSED):
        raise ScanError(
            "The DICOM file uses a compression that cannot be read here: "
            "export it uncompressed, or as JPEG Lossless, JPEG-LS or JPEG 2000."
        )
    if header.photometric not in GREY + COLOUR or ds.BitsAllocated % 8:
        raise ScanError(
            "The DICOM file contains neither grey values nor usual colours: "
            "export it as a greyscale (MONOCHROME2) image."
        )
    check_volume(header.pictures, *header.picture_shape)
    return header


def data_set(data: bytes) -> tuple[bytes, int, str]:
    """Return the data set's bytes, inflated if needed, its start, and its transfer syntax."""
    from pydicom.filereader import read_dataset

    file = _LimitedFile(data)
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


@cache
def _list_tags() -> set[int]:
    from pydicom.tag import Tag

    named = (*KEYWORDS.split(), *SERIES_WITHOUT_UID, *WEIGHTING)
    return {*map(Tag, named), *map(Tag, PRIVATE)}


def _count_frames(ds: Dataset, pixels: Pixels, body: bytes) -> tuple[int, list[str]]:
    """Return the declared number of frames, or else those that the pixels fill exactly."""
    if declared := int(ds.get("NumberOfFrames") or 0):
        return declared, []
    size, held = pixels.frame_bytes, min(pixels.length, len(body) - pixels.start)
    frames = held // size if size and held % size < 2 else 1  # padded to an even number
    if pixels.are_compressed:  # they begin with a table of the frames' offsets, which may be empty
        frames = int.from_bytes(body[pixels.start + 4 : pixels.start + 8], "little") // 4
    note = f"The header does not say how many slices there are: the data hold {frames}."
    return max(frames, 1), [note] if frames > 1 else []


class _LimitedFile(io.BytesIO):
    """A file of which `MAX_HEADER` bytes can be read, besides those that are skipped."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.end, self.limit, self.reads = len(data), MAX_HEADER, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `BytesIO` does.

        Raises:
            ScanError: beyond the limit, or after more than `MAX_READS` calls.
        """
        rest = self.end - self.tell()
        size = rest if size is None or size < 0 else min(size, rest)
        self.reads += 1
        if self.tell() + size > self.limit or self.reads > MAX_READS:
            raise ScanError("The DICOM header is too large: export the file without private data.")
        return super().read(size)
