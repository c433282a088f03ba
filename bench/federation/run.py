"""The federation engine measured on real scans, with small experts: one row a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench.federation.ablations import batch_norm, personal, poison
from bench.federation.faults import faults
from bench.federation.federation_engine import overhead, simulation, twice
from bench.federation.federation_ground import PRESET, Ground
from bench.federation.scaling import payload, scaling
from bench.names import require_known
from bench.progress import say
from bench.result_file import Figures, ResultFile

ROWS: dict[str, Callable[[Ground], Figures]] = {
    "twice": twice,
    "faults": faults,
    "simulation": simulation,
    "overhead": overhead,
    "payload": payload,
    "scaling": scaling,
    "poison": poison,
    "batch_norm": batch_norm,
    "personal": personal,
}


def rows_named(names: Sequence[str] | None) -> list[str]:
    """The rows of these names, all by default. Raises ValueError for an unknown one."""
    require_known("row", names or (), ROWS)
    return [name for name in ROWS if not names or name in names]


def run(
    store: ResultFile, ground: Ground, names: Sequence[str], personal_preset: str = PRESET
) -> None:
    """The rows that are not there yet; with another preset, 'personal' is a row of its own."""
    rows = store.content["rows"]
    for name in names:
        row = ROWS[name]
        if name == "personal" and personal_preset != PRESET:
            name = f"personal: {personal_preset}"
            row = partial(personal, preset=personal_preset)
        if rows.get(name, {}).get("unmeasured"):
            del rows[name]  # what was missing may be there now
        figures = store.row(name, partial(row, ground))
        if figures["met"] is False:
            say(f"{name}: missed: {figures['must']}")
