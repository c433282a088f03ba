"""The scans of a batch and what was read of them, by file number; a CSV of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from core.scan import ScanError, from_uint8, to_uint8
from demo.rendering.wording import RESEARCH
from demo.report.document import hash_levels
from demo.serving.uploads import Upload

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

MAX_SCANS = 400  # about 20 MB of levels
FULL = f"The batch is full: it holds at most {MAX_SCANS} scans. Read this file in another one."


@dataclass(frozen=True)
class Scan:
    """One row: a slice of a file that can be read, or the sentence that says why it cannot."""

    file: int  # counted from 1, in the order of arrival
    slice: int = 0  # counted from 1; 0 where the file could not be opened
    slices: int = 0  # of the whole file
    is_middle: bool = True
    levels: np.ndarray | None = None  # (1, 224, 224) uint8
    refusal: str = ""


@dataclass(frozen=True)
class Reading:
    """What the system puts out for one scan; the names are the CSV's columns."""

    score_name: str
    score: float
    tau: float
    flagged: bool
    t_star: int
    tumour_probability_undefended: float
    tumour_probability: float
    can_judge: bool
    ms: float
    seed: int
    scan_sha256: str

    @property
    def differs(self) -> bool:
        """Whether the outputs without and with defence are on two sides of one half."""
        return self.can_judge and (self.tumour_probability_undefended >= 0.5) != (
            self.tumour_probability >= 0.5
        )


COLUMNS = (
    "file", "slice", "slices", "status", *(f.name for f in fields(Reading)), "refusal", "notice"
)  # fmt: skip


@dataclass
class Worklist:
    """Grows while it is read: files may come, and what was read stays when reading is stopped."""

    scans: list[Scan] = field(default_factory=list)
    readings: dict[tuple[int, int], Reading | str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # for the visitor's own page and nothing else
    running: bool = False
    is_cleared: bool = False  # whatever is still on its way has no place to go

    def add(self, name: str, upload: Upload) -> None:
        """Takes a file's slices, or the middle one alone where there is no room for all."""
        self.names.append(name)
        file, volume = len(self.names), upload.volume
        room = MAX_SCANS - sum(scan.levels is not None for scan in self.scans)
        if volume is None or upload.is_colour:
            self.scans.append(Scan(file, refusal=upload.refusal))
        elif room < 1:
            self.scans.append(Scan(file, refusal=FULL))
        else:
            count = len(volume)
            wanted = range(count) if count <= room else [count // 2]
            for index in wanted:
                levels, refusal = None, ""
                try:
                    levels = to_uint8(volume.slice(index))
                except ScanError as error:
                    refusal = str(error)
                is_middle = index == count // 2
                self.scans.append(Scan(file, index + 1, count, is_middle, levels, refusal))

    def rows(self, each: bool) -> list[tuple[Scan, Reading | str | None]]:
        """The scans that are wanted, each slice or the middle ones, with what was read of them."""
        wanted = [scan for scan in self.scans if each or scan.is_middle]
        return [(s, s.refusal or self.readings.get((s.file, s.slice))) for s in wanted]

    def waiting(self, each: bool) -> list[Scan]:
        """The wanted scans that are still to be read."""
        return [scan for scan, result in self.rows(each) if result is None]

    def start(self, each: bool) -> bool:
        """Whether there is anything to read."""
        self.running = bool(self.waiting(each))
        return self.running

    def step(self, system: MedFedPure, each: bool, seed: int = 0) -> bool:
        """Reads the next scan unless it was stopped; whether to go on after it."""
        waiting = self.waiting(each)
        if self.running and waiting:
            scan = waiting[0]
            self.readings[scan.file, scan.slice] = _read(system, scan, seed)
        if not self.waiting(each):
            self.running = False
        return self.running

    def stop(self) -> None:
        """After the scan that is being read, which is kept as all before it."""
        self.running = False

    def clear(self) -> None:
        """Forgets everything; a step that is on its way finds this said."""
        self.running, self.is_cleared = False, True
        self.scans, self.names, self.readings = [], [], {}

    def to_csv(self, each: bool) -> bytes:
        """One line a row, names left out; what was not read says so."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(self._lines(each))
        return text.getvalue().encode()

    def _lines(self, each: bool) -> Iterator[dict[str, object]]:
        for scan, result in self.rows(each):
            line = {"file": scan.file, "slice": scan.slice or "", "slices": scan.slices or ""}
            if isinstance(result, Reading):
                line |= {"status": "read", **asdict(result)}
            else:
                line |= {"status": "refused" if result else "not read", "refusal": result or ""}
            yield {**line, "notice": RESEARCH}


def _read(system: MedFedPure, scan: Scan, seed: int) -> Reading | str:
    """What comes out, or the sentence of a reading that failed."""
    assert scan.levels is not None
    try:
        d = system.read(from_uint8(scan.levels), seed)
    except (RuntimeError, ValueError, MemoryError) as error:
        return f"The reading failed: {error}"
    return Reading(
        d.score_name, d.score, d.tau, d.flagged, d.t_star,
        d.tumour_probability_undefended, d.tumour_probability, d.can_judge,
        d.timings_ms["total"], d.seed, hash_levels(scan.levels),
    )  # fmt: skip
