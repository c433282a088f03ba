"""Split manifests: folds without shared near-duplicates, drawn by hash.

Two scans are near-duplicates when their 24 x 24 grey thumbnails, zero mean and unit norm, correlate
above .97 in any orientation: both sources hold scans beside their mirror images, left to right and
upside down. Groups are the connected components over all sources together. A group's fold follows
from a hash of the smallest sha256 of its files. These folds may share patients; those of protocol
'patients' do not (`train.data.split_patients`).
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from train.data.errors import DataError
from train.data.source_tables import COLLECTION
from train.data.sources import ALL_SOURCES, BR35H, HEALTHY, SOURCES, Record

THUMBNAIL_SIDE = 24
MIN_CORRELATION = 0.97
TEST_SHARE, VAL_SHARE = 0.20, 0.10
PAPER_TEST_SCANS, PAPER_VAL_SCANS = 600, 240
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "paper": (BR35H,),
    "leak-free": (BR35H,),
    "multi-source": (BR35H, COLLECTION),
    # for comparison only: each source is left out once
    "second-source": (COLLECTION,),
    "patients": ALL_SOURCES,
}
PATIENTS = "patients"
BY_GROUP = (BR35H, COLLECTION)  # sources of the protocols that know near-duplicates alone
FOLDS = ("train", "val", "test")
ASIDE = "aside"  # a near-duplicate of another patient's scan, in no fold
COLUMNS = ("file", "sha256", "source", "group", "fold")
PATIENT_COLUMNS = (*COLUMNS, "kind", "patient", "sequence", "plane")
MANIFESTS = Path(__file__).parents[1] / "manifests"


@dataclass(frozen=True)
class Entry:
    """Line of a manifest."""

    file: str
    sha256: str
    source: str
    group: int  # scans of a patient, or near-duplicates, share a number
    fold: str
    kind: str = ""  # of tumour, or 'no tumour'; empty where the folder says it
    patient: str = ""
    sequence: str = ""
    plane: str = ""

    @property
    def record(self) -> Record:
        """Picture with its label."""
        kind = self.kind or SOURCES[self.source][self.file.split("/")[1]][1]
        facts = self.patient, self.sequence, self.plane
        return Record(self.file, self.source, int(kind != HEALTHY), kind, *facts)


@dataclass(frozen=True)
class Manifest:
    """Split of one protocol, sorted by file; `sha256` identifies it in weights and results."""

    protocol: str
    entries: tuple[Entry, ...]

    @cached_property
    def sha256(self) -> str:
        """Sha256 of the manifest's text, in hexadecimal."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()

    def to_csv(self) -> str:
        """Return the manifest as the text of its committed file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = PATIENT_COLUMNS if any(e.kind for e in self.entries) else COLUMNS
        writer.writerow(columns)
        writer.writerows([getattr(e, c) for c in columns] for e in self.entries)
        return text.getvalue()

    def find_positions(self, *folds: str) -> list[int]:
        """Return the positions of all entries in the named folds."""
        return [i for i, e in enumerate(self.entries) if e.fold in folds]

    def count_scans(self) -> Counter[tuple[str, str, int]]:
        """Count the scans by (fold, source, label)."""
        return Counter((e.fold, e.source, e.record.label) for e in self.entries)


def read_manifest(protocol: str, folder: Path | None = None) -> Manifest:
    """Read a committed manifest, by default from `MANIFESTS`.

    Raises:
        DataError: the protocol is unknown, its file is damaged, or a patient is in two folds.
    """
    path = (folder or MANIFESTS) / f"{protocol}.csv"
    if protocol not in PROTOCOLS or not path.is_file():
        raise DataError(f"unknown protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    damaged = f"{path} is no split manifest: expected {', '.join(COLUMNS)}, with known folds"
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) not in (COLUMNS, PATIENT_COLUMNS):
            raise DataError(damaged)
        try:
            rows = [_read_entry(row) for row in reader]
        except ValueError:  # columns too few or too many, or no number
            raise DataError(damaged) from None
    if any(row.fold not in (*FOLDS, ASIDE) for row in rows):
        raise DataError(damaged)
    _check_patients(rows, path)
    return Manifest(protocol, tuple(rows))


def _read_entry(row: dict[str, str]) -> Entry:
    if None in row or None in row.values():
        raise ValueError(f"not {len(row)} columns")
    facts = {name: value for name, value in row.items() if name != "group"}
    return Entry(**facts, group=int(row["group"]))


def _check_patients(entries: Sequence[Entry], path: Path) -> None:
    folds: dict[tuple[str, str], str] = {}
    for entry in entries:
        if entry.patient and entry.fold != ASIDE:
            patient = entry.source, entry.patient
            if folds.setdefault(patient, entry.fold) != entry.fold:
                raise DataError(
                    f"{path} has scans of patient {entry.patient!r} of {entry.source} in the folds "
                    f"{folds[patient]} and {entry.fold}: a patient must be in one fold"
                )


def check_files(manifest: Manifest, root: str | Path, positions: Sequence[int]) -> None:
    """Check that the files at `positions` are those of the manifest.

    Raises:
        DataError: files are missing or differ; the message names the first and their number.
    """
    wrong = []
    for i in positions:
        entry = manifest.entries[i]
        path = Path(root) / entry.file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            wrong.append(entry.file)
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(positions)} files under {root} are missing or differ from the "
            f"manifest of {manifest.protocol!r}, the first is {wrong[0]}"
        )


def compute_thumbnails(scans: np.ndarray) -> np.ndarray:
    """Return zero-mean, unit-norm thumbnails (N, 576), float32, of uint8 scans (N, H, W)."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = [Image.fromarray(s).resize(size, Image.Resampling.BILINEAR) for s in scans]
    flat = np.stack([np.asarray(s, dtype=np.float32).ravel() for s in small])
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def list_orientations(thumbs: np.ndarray) -> list[np.ndarray]:
    """Return all eight orientations of thumbnails (N, 576), the unchanged one first."""
    square = thumbs.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    quarters = [np.rot90(square, k, axes=(1, 2)) for k in range(4)]
    both = [view for q in quarters for view in (q, q[:, :, ::-1])]
    return [np.ascontiguousarray(view).reshape(thumbs.shape) for view in both]


def find_pairs(thumbs: np.ndarray, threshold: float = MIN_CORRELATION) -> Iterator[tuple[int, int]]:
    """Yield the pairs i <= j of scans that correlate above `threshold` in any orientation."""
    forms = list_orientations(thumbs)
    for start in range(0, len(thumbs), 512):
        block = thumbs[start : start + 512]
        # of each pair once: the inverse of a turn is one of the forms too
        close = np.maximum.reduce([block @ form[start:].T for form in forms]) > threshold
        for i, j in zip(*np.nonzero(close), strict=True):
            if i <= j:
                yield start + int(i), start + int(j)


def find_groups(thumbs: np.ndarray, threshold: float = MIN_CORRELATION) -> np.ndarray:
    """Find the connected components of scans that correlate above `threshold` in any orientation.

    Returns:
        int64 (N,): the smallest position in each scan's group.
    """
    return connect(len(thumbs), find_pairs(thumbs, threshold))


def connect(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return the smallest position in each of n items' connected component, int64 (n,)."""
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for i, j in pairs:
        a, b = root(i), root(j)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(n)])


def choose_fold(smallest_sha256: str) -> str:
    """Choose a group's fold by a uniform number in [0, 1), the hash of its smallest sha256."""
    u = _hash_to_unit(smallest_sha256)
    return "test" if u < TEST_SHARE else "val" if u < TEST_SHARE + VAL_SHARE else "train"


def build_manifests(
    records: Sequence[Record], sha256: Sequence[str], scans: np.ndarray
) -> list[Manifest]:
    """Build the manifests of the protocols by near-duplicates, from `find_records` order.

    Records of other sources than theirs are passed over.
    """
    rows = [i for i, r in enumerate(records) if r.source in BY_GROUP]
    by_group = split_by_group([records[i] for i in rows], [sha256[i] for i in rows], scans[rows])
    manifests = []
    for protocol, sources in PROTOCOLS.items():
        if protocol == PATIENTS:
            continue
        entries = [e for e in by_group if e.source in sources]
        if protocol == "paper":
            entries = _split_at_random(entries)
        manifests.append(Manifest(protocol, tuple(entries)))
    return manifests


def split_by_group(
    records: Sequence[Record], sha256: Sequence[str], scans: np.ndarray
) -> list[Entry]:
    """Return an entry for each record, with its group and the group's fold, in their order."""
    groups = find_groups(compute_thumbnails(scans))
    smallest: dict[int, str] = {}
    for group, digest in zip(groups, sha256, strict=True):
        smallest[int(group)] = min(smallest.get(int(group), digest), digest)
    return [
        Entry(r.file, d, r.source, int(g), choose_fold(smallest[int(g)]))
        for r, d, g in zip(records, sha256, groups, strict=True)
    ]


def _split_at_random(entries: list[Entry]) -> list[Entry]:
    """Split by scan, regardless of near-duplicates, as published; drawn by hash."""
    order = sorted(
        range(len(entries)), key=lambda i: _hash_to_unit(entries[i].sha256 + entries[i].file)
    )
    folds = dict.fromkeys(order, "train")
    folds |= dict.fromkeys(order[:PAPER_TEST_SCANS], "test")
    folds |= dict.fromkeys(order[PAPER_TEST_SCANS : PAPER_TEST_SCANS + PAPER_VAL_SCANS], "val")
    return [Entry(e.file, e.sha256, e.source, e.group, folds[i]) for i, e in enumerate(entries)]


def _hash_to_unit(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13
