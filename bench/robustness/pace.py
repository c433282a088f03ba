"""How long the rest of a climb takes, judged by the rows that are whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bench.robustness.attacks import RUNGS, Rung
from bench.robustness.budgets import Budget


class Work(NamedTuple):
    """A row to come, and the scans that it will be tried on at most."""

    rung: Rung
    system: str
    scans: int


def time_left(rows: Mapping[str, Any], work: Iterable[Work], budget: Budget) -> str:
    """The time that rows to come will take, in words; empty where no row tells.

    A row's seconds per look at a scan are those of the same system's rows, else of all systems';
    attacks on the classifier alone and those on the whole go at paces of their own. Scans that a
    row was handed, since they had been attacked for another system, were no looks.
    """
    seconds = 0.0
    for rung, system, scans in work:
        for kinds in ((rung.alone, system), (rung.alone, None), (None, None)):
            pace = _pace(rows, budget, *kinds)
            if pace is not None:
                seconds += pace * rung.passes(budget) * scans
                break
    if not seconds:
        return ""
    minutes = max(round(seconds / 60), 1)
    return f"about {minutes} min" if minutes < 100 else f"about {minutes / 60:.1f} h"


def _pace(
    rows: Mapping[str, Any], budget: Budget, alone: bool | None, system: str | None
) -> float | None:
    """Seconds per look at a scan, over rows of this kind; None where there is none."""
    known = {rung.name: rung for rung in RUNGS}
    seconds, looks = 0.0, 0
    for row in rows.values():
        rung = known.get(row.get("row", ""))
        if rung and alone in (None, rung.alone) and system in (None, row["system"]):
            seconds += row["wall_s"]
            attacked = row["n"] - row["right"].count("-") - row.get("handed", 0)
            looks += rung.passes(budget) * attacked
    return seconds / looks if looks else None
