"""Cost of refusing answers that would flip, in words, read from results/*.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from demo.rendering.wording import format_percent

RESULTS = Path(__file__).parents[2] / "results"
FILE = "stability-patients.json"
NOT_MEASURED = "What refusing such answers costs has not been measured yet."


def describe_cost(d: float, folder: Path = RESULTS) -> str:
    """Describe what is refused and what is silently wrong at the measured radius nearest to d."""
    measured = _read_shares(folder)
    if not measured:
        return NOT_MEASURED
    if d > max(measured):
        return f"Measured up to {max(measured):g} alone."
    nearest = min((radius for radius in measured if radius), key=lambda radius: abs(radius - d))
    clean, silent = (measured[nearest][name] for name in ("clean_refused", "worst_silent"))
    before = measured.get(0.0, measured[nearest])["worst_silent"]
    return (
        f"Measured at {nearest:g} on {clean['n']} test scans of the mixture alone, each at its own "
        f"hospital: {format_percent(clean['value'])} of clean scans are not stable. Clean or "
        f"attacked (eps .015, by those who know the search), {format_percent(silent['value'])} get "
        f"a wrong answer that is stable; {format_percent(before['value'])} get a wrong answer, "
        "stable or not."
    )


@cache
def _read_shares(folder: Path) -> dict[float, dict[str, Any]]:
    """Read the shares by radius; empty if they were not measured."""
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))["rows"]
        return {float(d): shares for d, shares in rows["outcomes"]["by_radius"].items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}
