"""Tables of the sources: patients, sequences, planes and mask files of their pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from train.data.errors import DataError

COLLECTION = "brain-tumor-mri"
TCGA = "tcga-lgg"
IXI = "ixi"
# columns that each source's table must have; others are unknown
COLUMNS = {
    COLLECTION: ("file", "patient", "figshare_id", "mask", "mirrored"),
    TCGA: ("file", "sequence", "patient", "site", "slice", "tumour", "mask", "head_pixels"),
    IXI: ("file", "sequence", "patient", "plane", "slice", "tumour"),
}
FLAGS = {"0": False, "1": True}


class Line(NamedTuple):
    """Facts of one picture; an empty text where the table has none."""

    file: str
    patient: str
    sequence: str
    plane: str
    tumour: bool | None  # None where the folder says it
    mask: str
    mirrored: bool  # the mask must be mirrored left to right


def read_table(root: str | Path, source: str) -> list[Line]:
    """Read the table of a source, `SOURCE.csv` in the data folder, in its order.

    Raises:
        DataError: the table is missing, has other columns, or a line that cannot be read.
    """
    path = Path(root) / f"{source}.csv"
    if not path.is_file():
        raise DataError(f"no table {path}, which source {source!r} needs")
    try:
        return list(_read_lines(path, COLUMNS[source]))
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path} is no CSV table in UTF-8") from None


def _read_lines(path: Path, columns: tuple[str, ...]) -> Iterator[Line]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != columns:
            raise DataError(f"{path} must have the columns {', '.join(columns)}")
        for number, row in enumerate(reader, start=2):
            if None in row or None in row.values():
                raise DataError(f"line {number} of {path} does not have {len(columns)} columns")
            try:
                yield Line(
                    row["file"],
                    row["patient"],
                    row.get("sequence", ""),
                    row.get("plane", "axial" if "site" in row else ""),
                    FLAGS[row["tumour"]] if "tumour" in row else None,
                    row.get("mask", ""),
                    FLAGS[row.get("mirrored", "0")],
                )
            except KeyError:
                raise DataError(f"line {number} of {path}: a flag must be 0 or 1") from None
