"""The files of a zip or a folder, read one at a time and never written anywhere."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from core.scan.errors import MAX_SLICES, MAX_UNPACKED, MAX_VOLUME_BYTES, ScanError, check_bytes

MAX_FILES = 2 * MAX_SLICES  # series come with reports, previews and directories
DIRECTORY_ENTRY = b"PK\x01\x02"  # starts each entry of a zip's directory
# others may need any amount of memory
READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def files_in_zip(data: bytes) -> list[Callable[[], bytes]]:
    """Return a function that reads each file of a zip, sorted by name; check declared sizes.

    Raises:
        ScanError: damaged, encrypted, too large, or a path that points outside the zip.
    """
    _check_count(data.count(DIRECTORY_ENTRY))  # before a list of millions is made
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise ScanError("The zip is damaged or incomplete: create or send it again.") from None
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    entries.sort(key=lambda entry: rank_name(entry.filename))
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or entry.filename[1:2] == ":":
            raise ScanError(
                "The zip contains a file path that points outside it: create the zip again."
            )
        if entry.flag_bits & 1:
            raise ScanError("The zip is locked with a password: create it without one.")
        if entry.compress_type not in READABLE_METHODS:
            raise ScanError("The zip uses an unusual compression: create it as a standard zip.")
    _check_sizes([entry.file_size for entry in entries])
    return [partial(_unpack, archive, entry) for entry in entries]


def files_in_folder(folder: Path) -> list[Callable[[], bytes]]:
    """Return a function that reads each file of a folder and its subfolders, sorted by name.

    Raises:
        ScanError: too many or too large files.
    """
    found: list[Path] = []
    locked: list[OSError] = []
    for place, _, names in os.walk(folder, onerror=locked.append):
        found += [path for name in names if (path := Path(place, name)).is_file()]
        _check_count(len(found))
    found += [Path(error.filename) for error in locked]  # reading them fails: so they are counted
    _check_sizes([path.stat().st_size for path in found])
    return [path.read_bytes for path in sorted(found, key=rank_name)]


def rank_name(source: str | Path | bytes) -> list[tuple[int, str]]:
    """Return a key that sorts names as people do: IM2 before IM10; bytes have no name."""
    name = "" if isinstance(source, bytes) else str(source).lower()
    parts = re.split("([0-9]+)", name)
    numbers = (part.lstrip("0") if n % 2 else part for n, part in enumerate(parts))
    return [(len(part) if n % 2 else 0, part) for n, part in enumerate(numbers)]


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        return file.read(entry.file_size)  # without the limit it may unpack more than declared


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise ScanError(f"There are more than {MAX_FILES:,} files: send a single series.")


def _check_sizes(sizes: Sequence[int]) -> None:
    check_bytes(max(sizes, default=0), MAX_VOLUME_BYTES)
    if sum(sizes) > MAX_UNPACKED:
        raise ScanError("The files unpack to more than 1 GB: send a single series.")
