"""Figures on how often each kind of map points at the tumour, read from results/*.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results"
NOT_MEASURED = "not yet measured"
# of each kind of map: its name in the result file of the bench command `explanations`
MAPS = {"Grad-CAM": "Grad-CAM", "Tumour map": "tumour map"}
FILE = "explanations-patients.json"


@dataclass(frozen=True)
class Pointing:
    """Share of outlined tumours that hold a map's highest point, and of its energy inside."""

    share: float
    interval: tuple[float, float] | None  # 95 %
    inside: float  # mean share of the map's energy in the outline
    by_chance: float  # the outline's share of the head


def read_pointing(name: str, folder: Path = RESULTS) -> Pointing | None:
    """Read the figures of one kind of map on clean scans; None if they were not measured."""
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))["rows"]
        mean = rows["clean"]["maps"][name]["mean"]
        share, inside, chance = (mean[key]["value"] for key in ("pointing", "energy", "chance"))
        return Pointing(share, _pair(mean["pointing"].get("interval")), inside, chance)
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def render_pointing(folder: Path = RESULTS) -> str:
    """Render the figures of each kind of map as a table."""
    rows = ""
    for title, name in MAPS.items():
        cells = [NOT_MEASURED, NOT_MEASURED]
        if (found := read_pointing(name, folder)) is not None:
            ends = (
                ""
                if found.interval is None
                else " [{:.0f} to {:.0f}]".format(*(100 * end for end in found.interval))
            )
            cells = [f"{found.share * 100:.0f} %{ends}"]
            cells += [f"{found.inside * 100:.0f} % (by chance {found.by_chance * 100:.0f} %)"]
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows += f'<tr><th scope="row">{escape(title)}</th>{shown}</tr>'
    return (
        '<div class="mf-card"><h3>Measured on real tumours with an outline (95 % interval)</h3>'
        '<table><thead><tr><th scope="col">map</th><th scope="col">highest point in the tumour</th>'
        f'<th scope="col">energy in the tumour</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _pair(interval: Any) -> tuple[float, float] | None:
    if interval is None:
        return None
    low, high = interval
    return float(low), float(high)
