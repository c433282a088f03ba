"""File type by the first bytes; file names are often wrong or forged."""

from __future__ import annotations

HEAD_BYTES = 352  # needed to detect the type
SIGNATURES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # one without files
    b"\x1f\x8b": "gzip",
    b"\x89PNG": "picture",
    b"\xff\xd8\xff": "picture",
    b"BM": "picture",
    b"II": "picture",
    b"MM": "picture",
    b"RIFF": "picture",
    b"\x5c\x01\0\0": "nifti",
    b"\0\0\x01\x5c": "nifti",
    b"\x1c\x02\0\0": "nifti",
    b"\0\0\x02\x1c": "nifti",
}
FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\x10\0")  # of attributes that a data set begins with
NIFTI_1, NIFTI_2 = (b"n+1\0", b"ni1\0"), (b"n+2\0", b"ni2\0")


def detect_filetype(head: bytes) -> str:
    """Return dicom, nifti, gzip, zip or picture; picture also for an unknown type.

    A file with the DICOM prefix is DICOM and nothing else: its first 128 bytes may be those of
    another type (PS3.10, 7.1) and are not looked at, so no other decoder ever meets them.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    kind = next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), "")
    if kind == "nifti" and head[344:348] not in NIFTI_1 and head[4:8] not in NIFTI_2:
        kind = ""
    return kind or ("dicom" if _is_bare_dicom(head) else "picture")


def _is_bare_dicom(head: bytes) -> bool:
    """Return True for a data set without preamble and prefix, as old archives store it."""
    known_group = head[:2] in FIRST_GROUPS and head[3:4] == b"\0"
    is_explicit = head[4:6].isalpha() and head[4:6].isupper()
    return known_group and (is_explicit or head[6:8] == b"\0\0")
