"""Figures of maps by source, size and kind of the tumour, with intervals by unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.explanations.measures import Measures, choose_level
from bench.intervals import draw_mean, draw_units
from bench.summaries import group_rows
from bench.unseen.figures import Facts, find_known_interval, share_by_unit
from bench.unseen.sizes import SIZES

Figures = dict[str, Any]
SHARES = ("pointing", "recall", "empty")  # of scans; the others are means of values
VALUES = ("energy", "chance", "dice")


def summarize_maps(measures: Measures, facts: Facts, level: float) -> Figures:
    """Compute the figures of all sources, and the means over those with outlined tumours.

    `measures` are those at the `level` alone, from which the map marks a tumour.
    """
    columns = list_columns(measures, level)
    sources: Figures = {}
    for source, rows in group_rows(facts.sources).items():
        outlined = [i for i in rows if columns["pointing"][i].isfinite()]
        sources[source] = measure_rows(columns, facts, rows)
        for key, names, order in (
            ("sizes", facts.sizes, SIZES),
            ("kinds", facts.kinds, ()),
        ):
            groups = group_rows([names[i] for i in outlined])
            sources[source][key] = {
                name: measure_rows(columns, facts, [outlined[i] for i in groups[name]])
                for name in order or groups
                if name and name in groups
            }
    return {"level": level, "sources": sources, "mean": average_sources(columns, facts)}


def list_columns(measures: Measures, level: float) -> dict[str, Tensor]:
    """List each figure's values (N,), NaN where a scan does not count for it."""
    is_outlined = measures.points.isfinite()
    nothing = torch.full_like(measures.highest, torch.nan)
    return {
        "pointing": measures.points,
        "recall": torch.where(is_outlined, (measures.inside > level).double(), nothing),
        "empty": torch.where(is_outlined, nothing, (measures.highest <= level).double()),
        "energy": measures.energy,
        "chance": measures.chance,
        "dice": measures.dice[:, 0],
    }


def measure_rows(columns: dict[str, Tensor], facts: Facts, rows: Sequence[int]) -> Figures:
    """Compute every figure that the scans of these rows allow."""
    found: Figures = {}
    for name, values in columns.items():
        some = [i for i in rows if values[i].isfinite()]
        units = [facts.units[i] for i in some]
        if some and name in SHARES:
            found[name] = share_by_unit(values[some] == 1, units)
        elif some:
            found[name] = average_by_unit(values[some], units)
    return found


def average_by_unit(values: Tensor, units: Sequence[int]) -> Figures:
    """Compute the mean of values (N,), and its interval by unit."""
    drawn = draw_mean(draw_units(units), values, torch.ones(len(values), dtype=torch.bool))
    units_found = len(set(units))
    return {
        "n": len(values),
        "units": units_found,
        "value": float(values.mean()),
        "interval": find_known_interval(drawn) if units_found > 1 else None,
    }


def average_sources(columns: dict[str, Tensor], facts: Facts) -> Figures:
    """Compute each figure's mean over the sources with outlined tumours, each counting once."""
    times = draw_units(facts.units)
    has_units = len(set(facts.units)) > 1
    sources = group_rows(facts.sources)
    outlined = [n for n, rows in sources.items() if columns["pointing"][rows].isfinite().any()]
    found: Figures = {"sources": outlined}
    for name, values in columns.items():
        among = values.isfinite()
        numbers = values.nan_to_num()
        parts, drawn = [], []
        for rows in (sources[source] for source in outlined):
            if among[rows].any():
                parts.append(float(values[rows][among[rows]].mean()))
                drawn.append(draw_mean(times[:, rows], numbers[rows], among[rows]))
        if parts:
            interval = find_known_interval(torch.stack(drawn).mean(0)) if has_units else None
            found[name] = {"value": sum(parts) / len(parts), "interval": interval}
    return found


def find_level(measures: Measures, facts: Facts, levels: Tensor) -> Figures:
    """Find one level for all sources on validation scans; each source counts once.

    Raises:
        ValueError: the scans hold no outlined tumour, or no healthy scan.
    """
    is_outlined = measures.points.isfinite()
    dice, empty = [], []
    for rows in group_rows(facts.sources).values():
        sick = [i for i in rows if is_outlined[i]]
        well = [i for i in rows if not is_outlined[i]]
        if sick:
            dice.append(measures.dice[sick].mean(0))
        if well:
            empty.append((measures.highest[well][:, None] <= levels).double().mean(0))
    if not dice or not empty:
        raise ValueError(
            "the level of a map is chosen on healthy validation scans and on outlined tumours: "
            "take more validation scans, or data with tumour masks"
        )
    mean_dice, mean_empty = torch.stack(dice).mean(0), torch.stack(empty).mean(0)
    place = choose_level(mean_dice, mean_empty)
    return {
        "level": float(f"{float(levels[place]):.6g}"),  # as in the result file
        "dice": float(mean_dice[place]),
        "empty": float(mean_empty[place]),
        "outlined": int(is_outlined.sum()),
        "healthy": int((~is_outlined).sum()),
    }
