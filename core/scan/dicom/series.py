"""DICOM series: the largest one of several files as a volume, slices in anatomical order."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import chain

import numpy as np

from core.scan.dicom.frames import read_frames
from core.scan.dicom.grouping import describe_rest, group_slices, join_some
from core.scan.dicom.header import COLOUR, CutError, Header, NoPictureError, read_header
from core.scan.dicom.order import sort_slices
from core.scan.dicom.slices import Slice
from core.scan.errors import NotAnMRIError, ScanError, check_volume, empty_error
from core.scan.filetype import HEAD_BYTES, detect_filetype
from core.scan.image import DISPLAY_RANGE
from core.scan.levels import describe_darkness, find_levels
from core.scan.volume import Doubt, Volume, Window

File = Callable[[], bytes]  # reads a file; called twice, so that memory holds one file at a time
UNREAD, EMPTY, DAMAGED = "locked or too large", "empty", "damaged or of an unknown kind"
REFUSED = "of a kind that cannot be read here"
MAX_SLICES_NAMED = 10  # in a note on damaged ones
OTHER_MODALITIES = ("CT", "PT", "NM", "US", "CR", "DX", "XA", "MG")


def read_series(files: Sequence[File], any_picture: bool) -> Volume:
    """Read the largest series among the files; notes list what is left out.

    Slices lie in order of position along their normal, or else as `sort_slices` says.

    Raises:
        ScanError: none of the files is a DICOM image, or more than half of the slices are damaged.
        NotAnMRIError: a colour photograph, unless `any_picture`.
    """
    headers, notes = _read_headers(files)
    stacks = [sort_slices(group) for group in group_slices(headers)]
    chosen = max(stacks, key=lambda one: (len(one.slices), one.slices[0].plane == "axial"))
    notes += describe_rest(chosen.slices, [one.slices for one in stacks]) + chosen.notes
    data, slices, damage = _read_values(chosen.slices, files, any_picture)
    middle = slices[len(slices) // 2]
    header = middle.header
    is_inverted = header.photometric == "MONOCHROME1"
    padding = np.array([one.header.read_padding(one.frame) for one in slices], dtype=np.float32)
    display, windows = _read_display_range(header), _read_windows(middle)
    levels, filled = find_levels(data, display, padding, is_inverted)
    levels = levels[::-1] if is_inverted else levels
    dark = describe_darkness(data, levels, windows) if display else []
    gaps = np.diff(chosen.places)
    if gaps.any() and gaps.max() > 1.5 * np.median(gaps):
        notes.append(Doubt("The distance between slices varies: some may be missing."))
    spacing, is_in_mm = middle.read_spacing()
    if not is_in_mm and spacing and spacing[0] != spacing[1]:
        notes.append("The file gives the proportions of its pixels, but not their size.")
    warnings = dict.fromkeys(note for one in slices for note in _collect_warnings(one.header))
    gap = float(np.median(gaps)) if gaps.any() else middle.gap
    return Volume(
        data,
        levels,
        "DICOM",
        windows,
        spacing,
        gap if gap > 0 else None,
        middle.marks,
        (*notes, *damage, *filled, *warnings, *dark),
        is_in_mm,
    )


def _read_headers(files: Sequence[File]) -> tuple[dict[int, Header], list[str]]:
    """Return the headers of files with pictures, by number, and a note on the unreadable ones."""
    headers: dict[int, Header] = {}
    refusals: list[Exception] = []
    reasons: Counter[str] = Counter()
    for n, read in enumerate(files):
        data = None
        try:
            data = read()
            if not data:
                raise empty_error()
            if detect_filetype(data[:HEAD_BYTES]) == "dicom":
                headers[n] = read_header(data)
        except ImportError:
            raise
        except Exception as error:  # a damaged file makes its readers raise almost anything
            refusals.append(error)
            if not isinstance(error, NoPictureError):
                is_known = isinstance(error, ScanError) or getattr(error, "strerror", None)
                reason = UNREAD if data is None else REFUSED if data else EMPTY
                reasons[reason if is_known and not isinstance(error, CutError) else DAMAGED] += 1
    if refusals and (not headers or len(files) == 1):
        raise min(refusals, key=lambda error: isinstance(error, NoPictureError))
    if not headers:
        raise ScanError(
            "There are no DICOM slices in the zip or folder: send pictures and NIfTI volumes "
            "one by one, and unpack nested zips."
        )
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    left_out = f"Of {len(files)} files some are left out: {listed}."
    return headers, [Doubt(left_out)] if reasons else []


def _read_values(
    slices: Sequence[Slice], files: Sequence[File], any_picture: bool
) -> tuple[np.ndarray, list[Slice], list[str]]:
    """Read the slices' values; of several files, damaged slices are left out and noted.

    Returns:
        values (S, H, W), the S slices that they belong to, and the notes.
    """
    height, width = slices[0].header.picture_shape
    check_volume(len(slices), height, width)
    data = np.empty((len(slices), height, width), dtype=np.float32)
    rank = {(one.file, one.picture): n for n, one in enumerate(slices)}
    left = set(rank.values())
    headers = {one.file: one.header for one in slices}
    for file, header in sorted(headers.items()):
        picture = -1
        try:
            frames = read_frames(header, files[file](), any_picture)
            for picture, values in enumerate(chain.from_iterable(map(header.tile, frames))):
                if (n := rank.get((file, picture))) is not None:
                    data[n] = values
                    left.remove(n)
        except (NotAnMRIError, ImportError):
            raise
        except Exception as error:  # a damaged file makes its readers raise almost anything
            if len(headers) > 1:
                continue
            if isinstance(error, ScanError):
                raise
            bad = rank.get((file, picture + 1), 0) + 1
            message = f"Slice {bad} of {len(slices)} is damaged or incomplete: send the file again."
            raise ScanError(message) from error
    kept = [n for n in range(len(slices)) if n not in left]
    for n, old in enumerate(kept):  # in place, for large volumes
        data[n] = data[old]
    return data[: len(kept)], [slices[n] for n in kept], _describe_damage(left, len(slices))


def _describe_damage(left: Collection[int], count: int) -> list[str]:
    """Return a note that names the slices left out; refuse a stack of which most is damaged."""
    if not left:
        return []
    if 2 * len(left) > count:
        raise ScanError(f"{len(left)} of {count} slices are damaged: send the series again.")
    named = join_some([str(n + 1) for n in sorted(left)[:MAX_SLICES_NAMED]], len(left))
    left_out = f"Of {count} slices some are damaged and left out: number {named}"
    return [Doubt(f"{left_out}, counted before the others moved up.")]


def _read_display_range(header: Header) -> tuple[float, float] | None:
    if not header.is_display_ready:
        return None
    return DISPLAY_RANGE if header.photometric in COLOUR else (0.0, 2.0**header.ds.BitsStored - 1)


def _read_windows(one: Slice) -> tuple[Window, ...]:
    """Read the file's own windows; a VOI lookup table counts as the window of its inputs."""
    header = one.header
    centres = one.numbers("WindowCenter", 0, "FrameVOILUTSequence")
    widths = one.numbers("WindowWidth", 0, "FrameVOILUTSequence")
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


def _collect_warnings(header: Header) -> list[str]:
    modality = header.ds.get("Modality")
    found = list(header.notes)
    units = [name for name in ("RescaleSlope", "RescaleIntercept") if name in header.ds]
    if any(header.ds.get_item(name).value and not header.numbers(name, 1) for name in units):
        found.append(Doubt("The scale of the values is no number: brightness may be wrong."))
    if modality in OTHER_MODALITIES:
        found.append(
            Doubt(f"The file says it is {modality}, not MR: the models were trained on MR only.")
        )
    if header.ds.get("BurnedInAnnotation") == "YES":
        found.append("Text burned into the picture is not removed and may name the patient.")
    if header.photometric in COLOUR:
        found.append("The colours are read as grey.")
    return found
