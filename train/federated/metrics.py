"""Metric names in messages, and the summary of one round over its clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SCAN_COUNT = "num-examples"  # a client's weight in Eq. 23
EQUAL_WEIGHT = "one"  # the same weight for every client, needed to bound one client's influence
SECONDS = "seconds"  # a client's own time: displayed only, since equal runs differ in it
LOWER_IS_BETTER = ("nll", "random", "lattice")  # and the errors at a depth: t12 and so on


def summarize(clients: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean, sd, scan-weighted mean, worst and bottom-decile mean of each metric.

    The statistics are over clients: each client's own model on its own scans.
    """
    summary = {}
    counts = np.array([figures[SCAN_COUNT] for figures in clients.values()], dtype=float)
    keys = set.intersection(*(set(figures) for figures in clients.values())) - {SCAN_COUNT}
    for key in sorted(keys):
        values = np.array([figures[key] for figures in clients.values()])
        ordered = -np.sort(-values) if _is_error(key) else np.sort(values)
        summary[key] = {
            "mean": float(values.mean()),
            "sd": float(values.std()),
            "weighted": float((values * counts).sum() / counts.sum()),
            "worst": float(ordered[0]),
            "bottom_decile": float(ordered[: math.ceil(len(values) / 10)].mean()),
        }
    return summary


def format_round(round_index: int, total: int, record: Mapping[str, Any]) -> str:
    """Return one line of text for a round's record."""
    if record["skipped"]:
        return f"round {round_index}/{total} skipped: {record['skipped']}"
    text = f"round {round_index}/{total}  loss {record['loss']:.4f}"
    shown = [key for key in ("clean", "pgd") if key in record["summary"]] or ["score"]
    for key in shown:
        if key in record["summary"]:
            s = record["summary"][key]
            text += f"  {key} {s['mean']:.4f} (worst {s['worst']:.4f})"
    failures = len(record["failures"])
    return text + (f"  {failures} failed" if failures else "")


def _is_error(key: str) -> bool:
    return key in LOWER_IS_BETTER or (key[:1] == "t" and key[1:].isdigit())
