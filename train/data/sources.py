"""Sources: the labelled files of each data set, and their decoded scans as one cached array."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from core.scan import SIZE, ScanError, read_scan, to_uint8
from train.data.errors import DataError
from train.data.source_tables import COLLECTION, IXI, TCGA, read_table

MIN_PARALLEL_FILES = 500  # fewer are decoded sooner than other processes start
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
BR35H = "br35h"
HEALTHY = "no tumour"
# folder of each source -> {class folder: (label, subtype)}; label 1 is 'tumour'
SOURCES: dict[str, dict[str, tuple[int, str]]] = {
    BR35H: {"yes": (1, "tumour"), "no": (0, HEALTHY)},
    COLLECTION: {
        "glioma": (1, "glioma"),
        "meningioma": (1, "meningioma"),
        "pituitary": (1, "pituitary"),
        "notumor": (0, HEALTHY),
    },
}
# sources whose table, not the folder, says what a picture shows -> kind of their tumours
TABLE_SOURCES = {TCGA: "glioma", IXI: "tumour"}
ALL_SOURCES = (*SOURCES, *TABLE_SOURCES)


@dataclass(frozen=True)
class Record:
    """Labelled picture; `file` is relative to the data folder, with forward slashes."""

    file: str
    source: str
    label: int
    subtype: str
    patient: str = ""  # empty where unknown, as are the next two
    sequence: str = ""
    plane: str = ""


def find_data_root() -> Path | None:
    """Return the folder named by the environment variable MEDFEDPURE_DATA, or None."""
    value = os.environ.get("MEDFEDPURE_DATA")
    return Path(value) if value else None


def check_sources(root: str | Path, sources: Sequence[str], purpose: str, option: str = "") -> None:
    """Check that the data folder has a folder for each source that `purpose` needs.

    Raises:
        DataError: it has not; the message names what is needed, what is missing, and the option
            that does with fewer.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no data folder at {root}")
    present = [source for source in sources if (root / source).is_dir()]
    if len(present) < len(sources):
        missing = [source for source in sources if source not in present]
        fewer = f", or train on fewer, pooled, with {option} {','.join(present)}"
        raise DataError(
            f"{purpose} needs the sources {', '.join(sources)}, but {root} has no "
            f"{', '.join(missing)}: add what is missing{fewer if option and present else ''}"
        )


def find_records(root: str | Path, sources: Sequence[str]) -> list[Record]:
    """List the labelled scans of the named sources under `root`, sorted by file.

    Patients of the brain-tumour collection are known if its table is there.

    Raises:
        DataError: a folder or table is missing, or a folder has no picture; the message names it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no data folder at {root}")
    records: list[Record] = []
    for source in sources:
        if source not in ALL_SOURCES:
            raise DataError(f"unknown source {source!r}: choose from {', '.join(ALL_SOURCES)}")
        find = _find_in_table if source in TABLE_SOURCES else _find_in_folders
        records += find(root, source)
    return sorted(records, key=lambda record: record.file)


def _find_in_folders(root: Path, source: str) -> list[Record]:
    records = [
        Record(f"{source}/{folder}/{name}", source, label, subtype)
        for folder, (label, subtype) in SOURCES[source].items()
        for name in _list_pictures(root / source / folder)
    ]
    if source != COLLECTION or not (root / f"{source}.csv").is_file():
        return records
    patients = {line.file: line.patient for line in read_table(root, source)}
    return [replace(record, patient=patients.get(record.file, "")) for record in records]


def _find_in_table(root: Path, source: str) -> list[Record]:
    records = []
    for line in read_table(root, source):
        label, kind = (1, TABLE_SOURCES[source]) if line.tumour else (0, HEALTHY)
        facts = line.patient, line.sequence, line.plane
        records.append(Record(line.file, source, label, kind, *facts))
    return records


def find_class_records(root: str | Path) -> list[Record]:
    """List the pictures of a folder per class, as ImageFolder does: labels by sorted name.

    Raises:
        DataError: the folder is missing, has fewer than two classes, or one without a picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no data folder at {root}")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir())
    if len(classes) < 2:
        raise DataError(
            f"{root} needs a folder for each of at least two classes, found {len(classes)}"
        )
    return [
        Record(f"{name}/{picture}", root.name, label, name)
        for label, name in enumerate(classes)
        for picture in _list_pictures(root / name)
    ]


def hash_files(root: str | Path, records: Sequence[Record]) -> list[str]:
    """Return the sha256 of each file, in hexadecimal."""
    return [hashlib.sha256((Path(root) / r.file).read_bytes()).hexdigest() for r in records]


def load_scans(
    root: str | Path, records: Sequence[Record], cache: str | Path | None = None
) -> np.ndarray:
    """Load canonical scans as uint8 (N, 224, 224), decoded once into `cache`.

    The cache is keyed by the files with their sizes and times: a changed folder is decoded anew.

    Raises:
        DataError: there are no records, or a file is missing or cannot be read.
    """
    root = Path(root)
    if not records:
        raise DataError("no records to load")
    if cache is None:
        return _decode_all(root, records)
    missing = [r.file for r in records if not (root / r.file).is_file()]
    if missing:
        raise DataError(f"{len(missing)} files are missing under {root}, the first is {missing[0]}")
    stats = [(r.file, s.st_size, s.st_mtime_ns) for r in records for s in [(root / r.file).stat()]]
    key = hashlib.sha256(repr((SIZE, stats)).encode()).hexdigest()[:16]
    return load_cached(Path(cache) / f"scans-{key}.npy", lambda: _decode_all(root, records))


def load_cached(path: Path, build: Callable[[], np.ndarray]) -> np.ndarray:
    """Map the array of a cache file, which is built and written first if it is missing."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
        try:
            np.save(partial, build())
            partial.replace(path)
        finally:  # a full disk leaves nothing behind
            partial.unlink(missing_ok=True)
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array


def _decode_all(root: Path, records: Sequence[Record]) -> np.ndarray:
    paths = [str(root / r.file) for r in records]
    if len(paths) < MIN_PARALLEL_FILES:
        return np.concatenate([_decode(path) for path in paths])
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # torch's threads: no fork
        return np.concatenate(list(pool.map(_decode, paths, chunksize=64)))


def _decode(path: str) -> np.ndarray:
    try:
        return to_uint8(read_scan(path, any_picture=True))
    except ScanError as error:
        raise DataError(f"{path}: {error}") from error


def _list_pictures(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    if not names:
        raise DataError(f"no pictures in {folder}")
    return names
