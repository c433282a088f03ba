"""Split manifests: the folds of each protocol's scans, and the rules that know no patients.

Folds of protocol 'patients' and of those that follow from it share no patient
(`train.data.split_patients`). Those of 'paper' are drawn by scan, as published; its groups, the
connected components of near-duplicates over two sources together, say which scans are alike.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from train.data.errors import DataError
from train.data.near_duplicates import compute_thumbnails, find_groups
from train.data.source_tables import COLLECTION, TCGA
from train.data.sources import ALL_SOURCES, BR35H, HEALTHY, SOURCES, Record

TEST_SHARE, VAL_SHARE = 0.20, 0.10
PAPER_TEST_SCANS, PAPER_VAL_SCANS = 600, 240
PAPER, PATIENTS = "paper", "patients"
# protocols that follow from 'patients' -> the source that they leave out of training
LEFT_OUT = {f"without-{source}": source for source in (BR35H, COLLECTION, TCGA)}
PROTOCOLS: dict[str, tuple[str, ...]] = {
    PAPER: (BR35H,),
    PATIENTS: ALL_SOURCES,
    **dict.fromkeys(LEFT_OUT, ALL_SOURCES),
}
GROUPED = (BR35H, COLLECTION)  # near-duplicates over these make the groups of 'paper'
FOLDS = ("train", "val", "test")
PAIRS = "near-duplicates.csv"  # beside the manifests
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
    first_fold: str = ""  # in 'patients', of a source that is left out

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
    """Read a committed manifest, by default from `MANIFESTS`, or derive it from 'patients'.

    Raises:
        DataError: the protocol is unknown, its file is damaged, or a patient is in two folds.
    """
    if protocol in LEFT_OUT:
        pairs = read_pairs(folder)
        return leave_out(read_manifest(PATIENTS, folder), LEFT_OUT[protocol], pairs)
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


def read_pairs(folder: Path | None = None) -> list[tuple[str, str]]:
    """Read the pairs of files of 'patients' that are near-duplicates in two units, if committed."""
    path = (folder or MANIFESTS) / PAIRS
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(first, second) for first, second in csv.reader(file)]


def leave_out(manifest: Manifest, source: str, pairs: Sequence[tuple[str, str]] = ()) -> Manifest:
    """Return the split that tests on all scans of `source` and trains on the others.

    The other scans keep their folds, but for those of the test fold, of units that hold a scan of
    the source, and of `pairs` with one of its scans: they are put aside.
    """
    shared = {e.group for e in manifest.entries if e.source == source}
    own = {e.file for e in manifest.entries if e.source == source}
    near = {file for pair in pairs for file in pair if own & {*pair}}

    def move(entry: Entry) -> Entry:
        if entry.source == source:
            return replace(entry, fold="test", first_fold=entry.fold)
        is_out = entry.group in shared or entry.file in near or entry.fold == "test"
        return replace(entry, fold=ASIDE) if is_out else entry

    return Manifest(f"without-{source}", tuple(map(move, manifest.entries)))


def find_test_parts(entries: Sequence[Entry]) -> dict[str, list[int]]:
    """Return the positions of a left-out source's scans in two parts.

    'test fold' holds those that 'patients' tests on too, which compares the two protocols; 'rest'
    those that it trains or validates on or puts aside.
    """
    out = [i for i, e in enumerate(entries) if e.first_fold]
    is_tested = {i: entries[i].first_fold == "test" for i in out}
    return {
        "test fold": [i for i in out if is_tested[i]],
        "rest": [i for i in out if not is_tested[i]],
    }


def keep_sources(manifest: Manifest, sources: Sequence[str]) -> Manifest:
    """Return the split of some sources of a protocol; its name and sha256 tell which.

    Raises:
        DataError: a source is not the protocol's, or training scans of one class are left.
    """
    held = [s for s in ALL_SOURCES if any(e.source == s for e in manifest.entries)]
    for source in sources:
        if source not in held:
            raise DataError(
                f"protocol {manifest.protocol!r} has no source {source!r}: choose from "
                f"{', '.join(held)}"
            )
    kept = [source for source in held if source in sources]
    if kept == held:
        return manifest
    entries = tuple(e for e in manifest.entries if e.source in kept)
    if len({e.record.label for e in entries if e.fold == "train"}) == 1:
        raise DataError(
            f"of protocol {manifest.protocol!r} the training scans of {', '.join(kept)} are of one "
            "class alone: add another source"
        )
    return Manifest(f"{manifest.protocol} of {', '.join(kept)}", entries)


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


def choose_fold(smallest_sha256: str) -> str:
    """Choose a group's fold by a uniform number in [0, 1), the hash of its smallest sha256."""
    u = _hash_to_unit(smallest_sha256)
    return "test" if u < TEST_SHARE else "val" if u < TEST_SHARE + VAL_SHARE else "train"


def build_paper(records: Sequence[Record], sha256: Sequence[str], scans: np.ndarray) -> Manifest:
    """Build the manifest of 'paper' from records sorted by file, which may be of more sources."""
    rows = [i for i, r in enumerate(records) if r.source in GROUPED]
    grouped = split_by_group([records[i] for i in rows], [sha256[i] for i in rows], scans[rows])
    return Manifest(PAPER, tuple(_split_at_random([e for e in grouped if e.source == BR35H])))


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
