"""State of a batch: its scans, their readings, and the CSV table of both."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from core.pipeline import MedFedPure
from core.scan import ScanError, to_uint8
from core.site.doubts import ASSUMED, ask_prevalence
from core.site.operating_point import SiteError
from demo.analysis.volume import SliceReading, answer_volume
from demo.batch.reading import Reading, list_columns, read_levels
from demo.batch.site import Shifts, Site, find_shifts, measure_site, set_threshold
from demo.rendering.wording import RESEARCH
from demo.serving.uploads import Upload

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
    site: Site | None = None  # that the batch is adapted to
    prevalence: float = ASSUMED  # assumed share of its scans with a tumour

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
        shifts, rows = self.find_shifts(), []
        for scan in scans:
            found = self.readings.get((scan.file, scan.slice))
            moved = shifts.move(found) if isinstance(found, Reading) else found
            rows.append((scan, scan.refusal or moved))
        return rows

    def list_volumes(self) -> dict[int, dict[int, SliceReading | None]]:
        """Return the readings of each file of several slices that are all read.

        By file and slice, the slices from 0; None where blank. They are at the operating point of
        the site that the batch is adapted to.
        """
        files: dict[int, list[tuple[Scan, Reading | str | None]]] = {}
        for scan, result in self.list_rows(each=True):
            files.setdefault(scan.file, []).append((scan, result))
        return {
            file: {
                scan.slice - 1: result.to_slice() if isinstance(result, Reading) else None
                for scan, result in rows
            }
            for file, rows in files.items()
            if 1 < rows[0][0].slices == len(rows)
            and all(isinstance(result, Reading) or scan.refusal for scan, result in rows)
        }

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
            scan, site = waiting[0], self.site
            assert scan.levels is not None
            result = read_levels(_fit(system, site), scan.levels, seed)
            if self.site is site:  # else it was read at a threshold that is not in use any more
                self.readings[scan.file, scan.slice] = result
            self.done += 1
        if not self.list_waiting(each):
            self.running = False
        return self.running

    def adapt(self, system: MedFedPure, prevalence: float) -> None:
        """Adapt the batch to its site.

        Scans that the site's threshold purifies to another depth wait to be read again.

        Raises:
            SiteError: the readings do not allow it, or look like one class while one half is
                assumed; they stay as they are.
        """
        site = measure_site(system, self._list_readings())
        if site.doubt and prevalence == ASSUMED:
            raise SiteError(ask_prevalence(site.doubt, "by the slider, then adapt"))
        self.site, self.prevalence = site, prevalence
        self._set_thresholds(_fit(system, self.site))

    def restore(self, system: MedFedPure) -> None:
        """Return to the hospital's own threshold and operating points."""
        self.site = None
        self._set_thresholds(system)

    def find_shifts(self) -> Shifts:
        """Find what the adaptation adds to the log-odds, from all readings of the batch."""
        none = self.site is None
        return Shifts() if none else find_shifts(self._list_readings(), self.prevalence)

    def _list_readings(self) -> list[Reading]:
        return [r for r in self.readings.values() if isinstance(r, Reading)]

    def _set_thresholds(self, system: MedFedPure) -> None:
        for key, result in list(self.readings.items()):
            if isinstance(result, Reading):
                moved = set_threshold(system, result)
                if moved is None:
                    del self.readings[key]
                else:
                    self.readings[key] = moved

    def stop(self) -> None:
        """Stop after the scan that is being read; all readings are kept."""
        self.running = False

    def clear(self) -> None:
        """Drop everything; a step still running sees `is_cleared`."""
        self.running, self.is_cleared = False, True
        self.scans, self.names, self.readings, self.site = [], [], {}, None

    def to_csv(self, each: bool) -> bytes:
        """Return one line per row, without file names; rows not read are marked."""
        text = io.StringIO(newline="")
        experts = max((len(r.expert_shares) for r in self._list_readings()), default=0)
        columns = (
            "file", "slice", "slices", "status", *list_columns(experts), "site_shift",
            "volume_tumour_probability", "volume_slices", "refusal", "doubts", "notice",
        )  # fmt: skip
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self._build_lines(each))
        return text.getvalue().encode()

    def _build_lines(self, each: bool) -> Iterator[dict[str, object]]:
        shift = "" if self.site is None else self.find_shifts().defended
        answers = {file: answer_volume(of) for file, of in self.list_volumes().items()}
        for scan, result in self.list_rows(each):
            line: dict[str, object] = {
                "file": scan.file,
                "slice": scan.slice or "",
                "slices": scan.slices or "",
            }
            if isinstance(result, Reading):
                line |= {"status": "read", **result.to_columns(), "site_shift": shift}
            else:
                line |= {"status": "refused" if result else "not read", "refusal": result or ""}
            if answer := answers.get(scan.file):
                line["volume_tumour_probability"] = answer.tumour_probability
                line["volume_slices"] = " ".join(str(n + 1) for n in answer.slices)
            yield {**line, "doubts": " ".join(scan.doubts), "notice": RESEARCH}


def _fit(system: MedFedPure, site: Site | None) -> MedFedPure:
    """Return the system with the threshold of a site, weights shared."""
    return system if site is None else system.with_tau(site.tau)
