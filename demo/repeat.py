"""Command that repeats the analysis of a report: `python -m demo.repeat REPORT`."""

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


def compare(stored: Mapping[str, Any], repeated: Analysis) -> Iterator[tuple[str, float, float]]:
    """Yield name, stored value and new value of each number that is compared."""
    for name, diagnosis in repeated.readings:
        for number in NUMBERS:
            yield f"{name} {number}", stored[name][number], getattr(diagnosis, number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all numbers agree, 1 if one differs, 2 if the report cannot be repeated."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.repeat",
        description="Repeat the analysis of a JSON report of the page and compare the numbers. "
        "Research and teaching only, not for clinical use.",
    )
    parser.add_argument("report", metavar="REPORT", help="JSON report")
    parser.add_argument(
        "--weights", metavar="DIR", help="folder of weights (default: the shipped weights)"
    )
    args = parser.parse_args(arguments)
    try:
        stored = json.loads(Path(args.report).read_bytes())
        system = load(args.weights, hospital=stored["system"].get("hospital"))
        rows = list(compare(stored, document.repeat_analysis(system, stored)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    if stored.get("weights_sha256") != document.find_weight_hashes(system.info):
        print("The report was made with other weights.", file=sys.stderr)
    differs = 0
    for name, was, now in rows:
        same = abs(was - now) <= TOLERANCE
        differs += not same
        print(f"{name}: {was:.6g}, now {now:.6g}{'' if same else '  DIFFERS'}")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
