"""Errors of files that cannot be read, and size limits for untrusted files."""

from __future__ import annotations

MB = 2**20
MAX_BYTES = 20 * MB  # a picture
MAX_VOLUME_BYTES = 250 * MB  # a volume, a zip, or one file of a series
MAX_UNPACKED = 1024 * MB  # of a zip or folder, and of the values that come out
MAX_SLICES = 2000
MAX_PIXELS = 50_000_000  # of one slice
MIN_SIDE = 32


class ScanError(ValueError):
    """A file that cannot be read as a scan; the message is one sentence for a clinician."""


class NotAnMRIError(ScanError):
    """A picture that does not look like a brain MRI; `any_picture=True` reads it anyway."""


def damage_error() -> ScanError:
    """Return the error for a damaged file: decoders raise almost anything."""
    return ScanError("The file is damaged or incomplete and cannot be opened.")


def empty_error() -> ScanError:
    """Return the error for a file of no bytes."""
    return ScanError("The file is empty.")


def not_numbers_error() -> ScanError:
    """Return the error for pixels that are infinite or NaN."""
    return ScanError(
        "The picture contains values that are not numbers: set them to 0 and save it again."
    )


def check_bytes(size: int, limit: int) -> None:
    """Raise `ScanError` for a file of more bytes than `limit`."""
    if size > limit:
        raise ScanError(f"The file is larger than {limit // MB} MB.")


def check_pixels(rows: int, columns: int) -> None:
    """Raise `ScanError` for a slice that is too large or too small; call it before decoding."""
    if rows * columns > MAX_PIXELS:
        raise ScanError(f"The picture has more than {MAX_PIXELS // 1_000_000} million pixels.")
    if min(rows, columns) < MIN_SIDE:
        raise ScanError(
            f"The picture is only {columns} x {rows} pixels: "
            f"at least {MIN_SIDE} x {MIN_SIDE} are needed."
        )


def check_volume(slices: int, rows: int, columns: int) -> None:
    """Raise `ScanError` for a volume that is empty or above the limits as float32."""
    if slices < 1 or rows < 1 or columns < 1:
        raise damage_error()
    check_pixels(rows, columns)
    if slices > MAX_SLICES:
        raise ScanError(f"The volume has {slices:,} slices: at most {MAX_SLICES:,} can be read.")
    if 4 * slices * rows * columns > MAX_UNPACKED:
        raise ScanError(
            f"The volume of {slices} slices of {columns} x {rows} pixels would take more than "
            "1 GB of memory: send fewer or smaller slices."
        )
