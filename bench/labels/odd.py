"""Odd files, found without a model: identical ones, near-duplicates and patients that disagree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from train.data.split import Entry

Finding = dict[str, Any]
# kind -> its words
KINDS = {
    "identical": "byte-identical with another file",
    "identical, other label": "byte-identical with a file of another label or source",
    "near-duplicate, other label": "near-duplicate of a scan with the other label",
    "near-duplicate, other kind": "near-duplicate of a tumour of another kind",
    "patient, other kind": "tumour of a patient who has more scans of another kind",
    "patient of another source": "tumour of no known patient, near-duplicate of one's elsewhere",
}
OF_PAIRS = [k for k in KINDS if k.startswith("near-duplicate") or k == "patient of another source"]
UNNAMED = "tumour"  # kind of a tumour whose source does not name it


def describe(entry: Entry) -> Finding:
    """Return what a list says of a scan."""
    record = entry.record
    facts = {"file": entry.file, "source": entry.source, "kind": record.subtype}
    known = {"patient": entry.patient, "sequence": entry.sequence, "plane": entry.plane}
    return {**facts, "unit": entry.group, **{k: v for k, v in known.items() if v}}


def find_odd_files(
    entries: Sequence[Entry], pairs: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, int, list[int]]]:
    """Yield the (kind, row, rows that it is odd beside) of odd files.

    `pairs` are near-duplicates.
    """
    yield from _find_identical(entries)
    yield from _find_disagreeing(entries, pairs)
    yield from _find_patients(entries)


def list_partners(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Return the near-duplicates of each row that has any, in order."""
    partners: dict[int, list[int]] = defaultdict(list)
    for i, j in pairs:
        partners[i].append(j)
        partners[j].append(i)
    return {row: sorted(others) for row, others in sorted(partners.items())}


def _find_identical(entries: Sequence[Entry]) -> Iterator[tuple[str, int, list[int]]]:
    same: dict[str, list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        same[entry.sha256].append(row)
    for rows in same.values():
        facts = {(entries[i].source, entries[i].record.subtype) for i in rows}
        kind = "identical" if len(facts) == 1 else "identical, other label"
        if len(rows) > 1:
            yield from ((kind, i, [j for j in rows if j != i]) for i in rows)


def _find_disagreeing(
    entries: Sequence[Entry], pairs: Iterable[tuple[int, int]]
) -> Iterator[tuple[str, int, list[int]]]:
    records = [entry.record for entry in entries]
    for i, others in list_partners(pairs).items():
        label, kind = records[i].label, records[i].subtype
        if contrary := [j for j in others if records[j].label != label]:
            yield "near-duplicate, other label", i, contrary
        named = [j for j in others if records[j].label and records[j].subtype != UNNAMED]
        if (
            label
            and kind != UNNAMED
            and (named := [j for j in named if records[j].subtype != kind])
        ):
            yield "near-duplicate, other kind", i, named
        known = [j for j in others if records[j].patient and records[j].source != records[i].source
                 and records[j].label]  # fmt: skip
        if label and not records[i].patient and known:
            yield "patient of another source", i, known


def _find_patients(entries: Sequence[Entry]) -> Iterator[tuple[str, int, list[int]]]:
    tumours: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        if entry.patient and entry.record.label:
            tumours[entry.source, entry.patient].append(row)
    for rows in tumours.values():
        kinds = Counter(entries[i].record.subtype for i in rows)
        for i in rows:
            usual = [j for j in rows if kinds[entries[j].record.subtype]
                     > kinds[entries[i].record.subtype]]  # fmt: skip
            if usual:
                yield "patient, other kind", i, usual
