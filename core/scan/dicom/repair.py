"""Attributes that poor headers lack or misspell, assumed as other DICOM readers do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.scan.errors import ScanError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NEEDED = {"Rows": "rows", "Columns": "columns", "BitsAllocated": "bits of a pixel"}
BRIGHT = {"MONOCHROME1": "low", "MONOCHROME2": "high"}


def complete_header(ds: Dataset, photometrics: Sequence[str], is_integer: bool) -> list[str]:
    """Fill in what `ds` lacks for decoding; return a note on each assumption.

    Only integers have a number of stored bits.

    Raises:
        ScanError: the size of the picture or of a pixel is missing.
    """
    from pydicom.pixels import apply_modality_lut

    lacking = [words for keyword, words in NEEDED.items() if not isinstance(ds.get(keyword), int)]
    if lacking:
        raise ScanError(
            f"The DICOM header does not say the number of {' and '.join(lacking)}: "
            "export the picture again."
        )
    samples, stated = ds.get("SamplesPerPixel"), str(ds.get("PhotometricInterpretation") or "")
    plain = {re.sub("[^A-Z0-9]", "", one): one for one in photometrics}
    default = "RGB" if samples == 3 else "MONOCHROME2"
    photometric = plain.get(re.sub("[^A-Z0-9]", "", stated.upper()), stated) or default
    is_single = photometric.startswith(("MONOCHROME", "PALETTE"))
    assumed = []
    if photometric != stated:
        ds.PhotometricInterpretation = photometric
        bright = BRIGHT.get(photometric)
        assumed.append(f"grey values, {bright} is bright" if bright else "colours")
    if not samples:
        ds.SamplesPerPixel = 1 if is_single else 3
        assumed.append("one value a pixel" if is_single else "three values a pixel")
    if is_integer and not ds.get("BitsStored"):
        ds.BitsStored = ds.BitsAllocated
        assumed.append(f"{ds.BitsStored} bits a value")
    listed = f"The header is incomplete or misspelt; assumed: {', '.join(assumed)}."
    notes = [listed] if assumed else []
    try:
        if "ModalityLUTSequence" in ds:
            apply_modality_lut(np.zeros((1, 1), dtype=np.int32), ds)
    except Exception:  # a malformed table must not refuse a good picture
        del ds.ModalityLUTSequence
        notes.append("The header's table for converting values is damaged and is left out.")
    return notes
