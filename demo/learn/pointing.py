"""Figures on how often each kind of map points at the tumour, read from results/*.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results"
NOT_MEASURED = "not yet measured"
# file and row of each kind of map
MAPS = {
    "Grad-CAM": ("looks-multi-source.json", "pointing"),
    "Tumour map": ("explanations-patients.json", "pointing"),
}


@dataclass(frozen=True)
class Pointing:
    """Share of outlined tumours that hold a map's highest point, and of its energy inside."""

    hits: int
    count: int
    low: float  # 95 % interval of hits / count
    high: float
    inside: float  # mean share of the map's energy in the outline
    by_chance: float  # the outline's share of the brain


def read_pointing(file: str, row: str, folder: Path = RESULTS) -> Pointing | None:
    """Read the figures of one kind of map; None if they were not measured."""
    try:
        found: Any = json.loads((folder / file).read_text(encoding="utf-8"))["rows"][row]
        hits = found["pointing"]
        low, high = hits.get("interval_by_group") or hits["interval"]
        return Pointing(hits["k"], hits["n"], low, high, found["energy_inside"], found["by_chance"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def render_pointing(folder: Path = RESULTS) -> str:
    """Render the figures of each kind of map as a table."""
    rows = ""
    for name, place in MAPS.items():
        cells = [NOT_MEASURED, NOT_MEASURED]
        if (found := read_pointing(*place, folder)) is not None:
            ends = f"{found.low * 100:.0f} to {found.high * 100:.0f}"
            share = f"{found.hits / found.count * 100:.0f} %"
            cells = [f"{share} [{ends}], {found.hits} of {found.count}"]
            cells += [f"{found.inside * 100:.0f} % (by chance {found.by_chance * 100:.0f} %)"]
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows += f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    return (
        '<div class="mf-card"><h3>Measured on real tumours with an outline (95 % interval)</h3>'
        '<table><thead><tr><th scope="col">map</th><th scope="col">highest point in the tumour</th>'
        f'<th scope="col">energy in the tumour</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
