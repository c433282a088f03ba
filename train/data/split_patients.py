"""Split by patient: no patient and no near-duplicate of another unit's scan in two folds.

A unit is a patient where one is known, a group of near-duplicates elsewhere
(`train.data.near_duplicates`). Near-duplicates of different labels or of two known patients do not
join units. A group without a patient joins the patient who has most of its near-duplicates. Units
of one kind (site and tumour) are dealt in the order of their hashes: a fifth of the scans is for
testing, a tenth for validation. A training scan that is still a near-duplicate of a scan for
testing or validation is put aside, and so is a validation scan that is one of a test scan.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from train.data.near_duplicates import compute_thumbnails, connect, find_pairs
from train.data.source_tables import TCGA
from train.data.sources import TABLE_SOURCES, Record
from train.data.split import (
    ASIDE,
    PATIENTS,
    TEST_SHARE,
    VAL_SHARE,
    Entry,
    Manifest,
)

SITES = {"EZ": "FG"}  # a site of one patient counts as part of the next


def build_patients(
    records: Sequence[Record], sha256: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> Manifest:
    """Build the manifest of 'patients' from records sorted by file, and their near-duplicates."""
    units = _name_units(records, sha256, pairs)
    folds = _deal(_find_strata(records, units), Counter(units))
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    entries = []
    for r, digest, unit in zip(records, sha256, units, strict=True):
        facts = r.subtype, r.patient, r.sequence, r.plane
        entries.append(Entry(r.file, digest, r.source, numbers[unit], folds[unit], *facts))
    return Manifest(PATIENTS, tuple(_put_aside(entries, pairs)))


def find_duplicates(records: Sequence[Record], scans: np.ndarray) -> list[tuple[int, int]]:
    """Find the pairs of records that are near-duplicates.

    Pairs within the sources whose patients are all known do not count: heads of different people
    are alike at the size of a thumbnail.
    """
    is_listed = [r.source in TABLE_SOURCES for r in records]
    pairs = find_pairs(compute_thumbnails(scans))
    return [(i, j) for i, j in pairs if i < j and not (is_listed[i] and is_listed[j])]


def find_crossing(manifest: Manifest, pairs: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    """Return the files of the pairs of near-duplicates that are in two units."""
    entries = manifest.entries
    return [
        (entries[i].file, entries[j].file) for i, j in pairs if entries[i].group != entries[j].group
    ]


def find_site(entry: Entry | Record) -> str:
    """Return the hospital that a scan is from, or its source where that is not known."""
    if entry.source != TCGA:
        return entry.source
    site = entry.patient.split("_")[0]
    return f"{TCGA}/{SITES.get(site, site)}"


def _may_be_one(a: Record, b: Record) -> bool:
    are_two = a.patient and b.patient and a.patient != b.patient
    return a.label == b.label and not are_two


def _name_units(
    records: Sequence[Record], sha256: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> list[str]:
    is_known = [bool(r.patient) for r in records]
    pairs = [(i, j) for i, j in pairs if _may_be_one(records[i], records[j])]
    inside = [(i, j) for i, j in pairs if not is_known[i] and not is_known[j]]
    groups = connect(len(records), inside)
    smallest: dict[int, str] = {}
    for group, digest in zip(groups, sha256, strict=True):
        smallest[int(group)] = min(smallest.get(int(group), digest), digest)
    patients: dict[int, Counter[str]] = defaultdict(Counter)
    for i, j in pairs:
        if is_known[i] != is_known[j]:
            known, unknown = (i, j) if is_known[i] else (j, i)
            patients[int(groups[unknown])][_name_patient(records[known])] += 1

    def name(record: Record, group: int) -> str:
        if record.patient:
            return _name_patient(record)
        known = patients[group]
        return min(known, key=lambda p: (-known[p], p)) if known else smallest[group]

    return [name(r, int(g)) for r, g in zip(records, groups, strict=True)]


def _name_patient(record: Record) -> str:
    return f"{record.source}/{record.patient}"


def _find_strata(
    records: Sequence[Record], units: Sequence[str]
) -> dict[tuple[str, str], list[str]]:
    """Return the units of each (site, kind); a unit is of the kind of most of its scans.

    A patient with and without tumour counts as one with.
    """
    members: dict[str, list[Record]] = defaultdict(list)
    for record, unit in zip(records, units, strict=True):
        members[unit].append(record)
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for unit, scans in members.items():
        sick = [r for r in scans if r.label] or scans
        kinds = Counter((find_site(r), r.subtype) for r in sick)
        strata[min(kinds, key=lambda kind: (-kinds[kind], kind))].append(unit)
    return strata


def _deal(strata: dict[tuple[str, str], list[str]], sizes: Mapping[str, int]) -> dict[str, str]:
    """Deal the units of each stratum to the first fold that has room for all their scans."""
    folds = {}
    for units in strata.values():
        scans = sum(sizes[unit] for unit in units)
        room = {"test": TEST_SHARE * scans, "val": VAL_SHARE * scans}
        for unit in sorted(units, key=lambda u: hashlib.sha256(u.encode()).hexdigest()):
            fold = next((f for f in room if sizes[unit] <= room[f]), "train")
            folds[unit] = fold
            if fold in room:
                room[fold] -= sizes[unit]
    return folds


def _put_aside(entries: Sequence[Entry], pairs: Sequence[tuple[int, int]]) -> Iterator[Entry]:
    rank = {"train": 0, "val": 1, "test": 2}
    aside = set()
    for i, j in pairs:
        a, b = rank[entries[i].fold], rank[entries[j].fold]
        if a != b:
            aside.add(i if a < b else j)
    for i, entry in enumerate(entries):
        yield replace(entry, fold=ASIDE) if i in aside else entry
