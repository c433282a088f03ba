"""Repeats the analysis of a report: `python -m demo.repeat medfedpure-report.json`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.checkpoint import WeightsError
from core.weights import load
from demo.analysis.analysis import Analysis
from demo.report import document

NUMBERS = ("score", "t_star", "tumour_probability_undefended", "tumour_probability")
TOLERANCE = 1e-3  # another processor or another version of PyTorch rounds differently


def compare(stored: Mapping[str, Any], again: Analysis) -> Iterator[tuple[str, float, float]]:
    """Each number that matters: its name, as it was, as it is now."""
    for name, diagnosis in again.readings:
        for number in NUMBERS:
            yield f"{name} {number}", stored[name][number], getattr(diagnosis, number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where all numbers are the same, 1 where one differs, 2 where it cannot be told."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.repeat",
        description="Repeats the analysis that a JSON report of the page describes, and compares. "
        "Research and teaching only, not for clinical use.",
    )
    parser.add_argument("report", metavar="REPORT", help="the JSON file")
    parser.add_argument("--weights", metavar="DIR", help="folder of weights (default: those here)")
    args = parser.parse_args(arguments)
    try:
        stored = json.loads(Path(args.report).read_bytes())
        system = load(args.weights, hospital=stored["system"].get("hospital"))
        rows = list(compare(stored, document.repeat_analysis(system, stored)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    if stored.get("weights_sha256") != document.find_weight_hashes(system.info):
        print("The report was made with other weights than these.", file=sys.stderr)
    differs = 0
    for name, was, now in rows:
        same = abs(was - now) <= TOLERANCE
        differs += not same
        print(f"{name}: {was:.6g}, now {now:.6g}{'' if same else '  DIFFERS'}")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
