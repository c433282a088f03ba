"""DICOM series: the largest one of several files as a volume, slices in anatomical order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.scan.dicom.frames import read_frames
from core.scan.dicom.header import COLOUR, Header, read_header
from core.scan.errors import ScanError, check_volume, damage_error
from core.scan.filetype import HEAD_BYTES, detect_filetype
from core.scan.image import DISPLAY_RANGE
from core.scan.volume import Volume, Window, compute_percentiles

File = Callable[[], bytes]  # reads a file; called twice, so that memory holds one file at a time
OTHER_MODALITIES = ("CT", "PT", "NM", "US", "CR", "DX", "XA", "MG")


class _Slice(NamedTuple):
    place: float  # mm along the normal of the slices; 0 where that is unknown
    number: float  # instance number
    file: int
    frame: int


def read_series(files: Sequence[File], any_picture: bool) -> Volume:
    """Read the largest series among the files; notes list what is left out.

    Slices lie in order of position along their normal, or else of instance number.

    Raises:
        ScanError: none of the files is a DICOM image, or a slice is damaged.
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    headers, notes = _read_headers(files)
    series: dict[tuple[Any, ...], list[int]] = {}
    for file, header in headers.items():
        series.setdefault(_compute_series_key(header), []).append(file)
    largest = max(series.values(), key=lambda chosen: sum(headers[n].frames for n in chosen))
    slices = _sort_slices(largest, headers)
    if len(series) > 1:
        notes.append(f"There are {len(series)} series: the largest, {len(slices)} slices, is read.")
    places = {round(one.place, 2): one for one in reversed(slices)}
    if 1 < len(places) < len(slices):  # echoes, diffusion weights, time points
        slices = sorted(places.values())
        notes.append("Several pictures lie at each position: the first of each is read.")
    middle = slices[len(slices) // 2]
    header = headers[middle.file]
    data = _read_values(slices, headers, files, any_picture)
    levels = compute_percentiles(data)
    if header.is_display_ready:
        levels = (
            DISPLAY_RANGE if header.photometric in COLOUR else (0.0, 2.0**header.ds.BitsStored - 1)
        )
    gaps = np.diff([one.place for one in slices])
    if gaps.any() and gaps.max() > 1.5 * np.median(gaps):
        notes.append("The distance between slices varies: some may be missing.")
    spacing, apart, thick = (
        header.numbers(keyword, count, middle.frame, "PixelMeasuresSequence")
        for keyword, count in (
            ("PixelSpacing", 2),
            ("SpacingBetweenSlices", 1),
            ("SliceThickness", 1),
        )
    )
    gap = float(np.median(gaps)) if gaps.any() else next(iter(apart or thick), 0.0)
    return Volume(
        data,
        levels[::-1] if header.photometric == "MONOCHROME1" else levels,
        "DICOM",
        _read_windows(header, middle.frame),
        (spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        gap if gap > 0 else None,
        _read_marks(header, middle.frame),
        (*notes, *_collect_warnings(header)),
    )


def _read_headers(files: Sequence[File]) -> tuple[dict[int, Header], list[str]]:
    """Return the headers of files with pictures, by number, and notes on the others."""
    headers: dict[int, Header] = {}
    refusals: list[ScanError] = []
    for n, read in enumerate(files):
        try:
            data = read()
            if detect_filetype(data[:HEAD_BYTES]) == "dicom":
                headers[n] = read_header(data)
        except ImportError:
            raise
        except ScanError as error:
            refusals.append(error)
        except Exception:  # a damaged file makes its readers raise almost anything
            refusals.append(damage_error())
    if refusals and (not headers or len(files) == 1):
        raise refusals[0]
    if not headers:
        raise ScanError(
            "There are no DICOM slices in the zip or folder: send pictures and NIfTI volumes "
            "one by one, and unpack nested zips."
        )
    left_out = f"{len(refusals)} of {len(files)} files cannot be read as slices and are left out."
    return headers, [left_out] if refusals else []


def _compute_series_key(header: Header) -> tuple[Any, ...]:
    """Return the attributes that all slices of one volume share."""
    uid, orientation = header.ds.get("SeriesInstanceUID"), _read_orientation(header, 0)
    return str(uid), header.shape, header.photometric, *(round(x, 1) for x in orientation)


def _read_orientation(header: Header, frame: int) -> list[float]:
    """Read the directions of rows and columns, towards the patient's left, back and head."""
    return header.numbers("ImageOrientationPatient", 6, frame, "PlaneOrientationSequence")


def _sort_slices(files: Sequence[int], headers: dict[int, Header]) -> list[_Slice]:
    slices = []
    is_placed = True
    for file in files:
        header = headers[file]
        number = next(iter(header.numbers("InstanceNumber", 1)), 0.0)
        for frame in range(header.frames):
            position = header.numbers("ImagePositionPatient", 3, frame, "PlanePositionSequence")
            directions = _read_orientation(header, frame)
            is_placed = is_placed and bool(position and directions)
            normal = np.cross(directions[:3], directions[3:]) if is_placed else np.zeros(3)
            place = float(normal @ position) if is_placed else 0.0
            slices.append(_Slice(place, number, file, frame))
    return sorted(slices if is_placed else [one._replace(place=0.0) for one in slices])


def _read_values(
    slices: Sequence[_Slice], headers: dict[int, Header], files: Sequence[File], any_picture: bool
) -> np.ndarray:
    shape = headers[slices[0].file].shape
    check_volume(len(slices), *shape)
    data = np.empty((len(slices), *shape), dtype=np.float32)
    rank = {(one.file, one.frame): n for n, one in enumerate(slices)}
    for file in sorted({one.file for one in slices}):
        frame = -1
        try:
            frames = read_frames(headers[file], files[file](), any_picture)
            for frame, values in enumerate(frames):
                if (file, frame) in rank:
                    data[rank[file, frame]] = values
        except (ScanError, ImportError):
            raise
        except Exception as error:
            bad = rank.get((file, frame + 1), 0) + 1
            raise ScanError(
                f"Slice {bad} of {len(slices)} is damaged or incomplete: send the file again."
            ) from error
    return data


def _read_windows(header: Header, frame: int) -> tuple[Window, ...]:
    """Read the file's own windows; a VOI lookup table counts as the window of its inputs."""
    centres = header.numbers("WindowCenter", 0, frame, "FrameVOILUTSequence")
    widths = header.numbers("WindowWidth", 0, frame, "FrameVOILUTSequence")
    pairs = list(zip(centres, widths, strict=False))
    for table in header.ds.get("VOILUTSequence") or []:
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # as for numbers
            entries, first, _ = table.LUTDescriptor
            pairs.append((first + (entries or 65536) / 2, entries or 65536))
    if header.photometric in COLOUR:
        return ()
    return tuple(
        Window(f"file {n}", float(centre), float(width))
        for n, (centre, width) in enumerate(pairs, start=1)
        if width > 0
    )


def _read_marks(header: Header, frame: int) -> tuple[str, str, str, str] | None:
    """Return the patient's sides at the left, right, top and bottom of the picture."""
    directions = np.array(_read_orientation(header, frame)).reshape(-1, 3)
    if not directions.any(axis=-1).all() or not directions.size:
        return None
    row, column = directions
    return _name_side(-row), _name_side(row), _name_side(-column), _name_side(column)


def _name_side(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return ("LPS" if direction[axis] > 0 else "RAI")[axis]


def _collect_warnings(header: Header) -> list[str]:
    modality = header.ds.get("Modality")
    found = []
    if modality in OTHER_MODALITIES:
        found.append(f"The file says it is {modality}, not MR: the models were trained on MR only.")
    if header.ds.get("BurnedInAnnotation") == "YES":
        found.append("Text burned into the picture is not removed and may name the patient.")
    if header.photometric in COLOUR:
        found.append("The colours are read as grey.")
    return found
