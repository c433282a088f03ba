"""State of a batch: its scans, their readings, and the CSV table of both."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from core.scan import ScanError, from_uint8, to_uint8
from demo.rendering.tumour_map import summarize_map
from demo.rendering.wording import RESEARCH
from demo.report.document import hash_levels
from demo.serving.uploads import Upload

if TYPE_CHECKING:
    from core.pipeline import MedFedPure

MAX_SCANS = 400  # 20 MB of pixels
FULL_MESSAGE = f"The batch is full (at most {MAX_SCANS} scans): read this file in another batch."


@dataclass(frozen=True)
class Scan:
    """One row of the table: a slice, or a file that cannot be read and why."""

    file: int  # from 1, in the order of arrival
    slice: int = 0  # from 1; 0 if the file could not be opened
    slices: int = 0  # in the file
    is_middle: bool = True
    levels: np.ndarray | None = None  # (1, 224, 224) uint8
    refusal: str = ""
    doubts: tuple[str, ...] = ()  # about the file, one sentence each


@dataclass(frozen=True)
class Reading:
    """Outputs for one scan; the field names are columns of the CSV."""

    score_name: str
    score: float
    tau: float
    flagged: bool
    t_star: int
    tumour_probability_undefended: float
    tumour_probability: float
    can_judge: bool
    tumour_area: float | None  # share of the head that the tumour map marks; None: no map
    where: str  # in words
    ms: float
    seed: int
    scan_sha256: str

    @property
    def differs(self) -> bool:
        """True if the classes without and with defence differ."""
        return self.can_judge and (self.tumour_probability_undefended >= 0.5) != (
            self.tumour_probability >= 0.5
        )


COLUMNS = (
    "file", "slice", "slices", "status", *(f.name for f in fields(Reading)), "refusal", "doubts",
    "notice",
)  # fmt: skip


@dataclass
class Worklist:
    """Mutable batch: files can be added while it is read; stopping keeps the readings."""

    scans: list[Scan] = field(default_factory=list)
    readings: dict[tuple[int, int], Reading | str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # shown to the visitor only, never exported
    running: bool = False
    is_cleared: bool = False  # a reading still running is discarded
    began: float = 0.0  # on the monotonic clock, when reading was started
    done: int = 0  # scans read since

    def add(self, name: str, upload: Upload) -> None:
        """Add a file's slices, or its middle slice if there is no room for all."""
        self.names.append(name)
        file, volume = len(self.names), upload.volume
        room = MAX_SCANS - sum(scan.levels is not None for scan in self.scans)
        if volume is None or upload.is_colour:
            self.scans.append(Scan(file, refusal=upload.refusal))
        elif room < 1:
            self.scans.append(Scan(file, refusal=FULL_MESSAGE))
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
                self.scans.append(
                    Scan(file, index + 1, count, is_middle, levels, refusal, volume.doubts)
                )

    def list_rows(self, each: bool) -> list[tuple[Scan, Reading | str | None]]:
        """Return the scans, all slices or middle slices only, with reading, refusal or None."""
        scans = [scan for scan in self.scans if each or scan.is_middle]
        return [(s, s.refusal or self.readings.get((s.file, s.slice))) for s in scans]

    def list_waiting(self, each: bool) -> list[Scan]:
        """Return the scans that are still to be read."""
        return [scan for scan, result in self.list_rows(each) if result is None]

    def start(self, each: bool) -> bool:
        """Start reading; return False if there is nothing to read."""
        self.running = bool(self.list_waiting(each))
        self.began, self.done = time.monotonic(), 0
        return self.running

    def estimate_seconds_left(self, each: bool) -> float | None:
        """Estimate when reading ends, from the scans read so far; None if that cannot be said."""
        if not self.running or not self.done:
            return None
        return (time.monotonic() - self.began) / self.done * len(self.list_waiting(each))

    def step(self, system: MedFedPure, each: bool, seed: int = 0) -> bool:
        """Read the next scan unless stopped; return whether scans are left."""
        waiting = self.list_waiting(each)
        if self.running and waiting:
            scan = waiting[0]
            self.readings[scan.file, scan.slice] = _read_scan(system, scan, seed)
            self.done += 1
        if not self.list_waiting(each):
            self.running = False
        return self.running

    def stop(self) -> None:
        """Stop after the scan that is being read; all readings are kept."""
        self.running = False

    def clear(self) -> None:
        """Drop everything; a step still running sees `is_cleared`."""
        self.running, self.is_cleared = False, True
        self.scans, self.names, self.readings = [], [], {}

    def to_csv(self, each: bool) -> bytes:
        """Return one line per row, without file names; rows not read are marked."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(self._build_lines(each))
        return text.getvalue().encode()

    def _build_lines(self, each: bool) -> Iterator[dict[str, object]]:
        for scan, result in self.list_rows(each):
            line = {"file": scan.file, "slice": scan.slice or "", "slices": scan.slices or ""}
            if isinstance(result, Reading):
                line |= {"status": "read", **asdict(result)}
            else:
                line |= {"status": "refused" if result else "not read", "refusal": result or ""}
            yield {**line, "doubts": " ".join(scan.doubts), "notice": RESEARCH}


def _read_scan(system: MedFedPure, scan: Scan, seed: int) -> Reading | str:
    """Read one scan; return its reading, or the error as a sentence."""
    assert scan.levels is not None
    try:
        d = system.read(from_uint8(scan.levels), seed)
    except (RuntimeError, ValueError, MemoryError) as error:
        return f"The reading failed: {error}"
    found = summarize_map(d)
    return Reading(
        d.score_name, d.score, d.tau, d.flagged, d.t_star,
        d.tumour_probability_undefended, d.tumour_probability, d.can_judge,
        found["tumour_area"] if found["where"] else None, found["where"],
        d.timings_ms["total"], d.seed, hash_levels(scan.levels),
    )  # fmt: skip
