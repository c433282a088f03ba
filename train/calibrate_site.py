"""Command `python -m train calibrate-site`: a hospital's weights for a new site, without labels."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.checkpoint import WEIGHTS, WeightsError
from core.scan import NotAnMRIError, ScanError, read_scan, to_uint8
from core.site.doubts import ASSUMED
from core.site.operating_point import GRID, TOLERANCE, SiteError
from core.weights import load
from train.calibration.site import Answers, SiteFigures, adapt, check_free, write_site
from train.data.dataset import space_evenly

MAX_SCANS = 1000  # more set no better operating point
POINTS = round(100 * TOLERANCE)  # that a share of answers may differ from the prevalence
PREVALENCE_RANGE = (0.05, 0.95)


@dataclass(frozen=True)
class Folder:
    """Scans of a folder, and counts of the files that hold none."""

    scans: np.ndarray  # (N, 1, 224, 224) uint8
    photographs: int
    unreadable: int


def read_folder(folder: Path) -> Folder:
    """Read every file in a folder and its subfolders, of a volume the middle slice.

    Of more than `MAX_SCANS` files evenly spaced ones are read.

    Raises:
        SiteError: there is no such folder, it is empty, most of its files are photographs, or none
            can be read.
    """
    if not folder.is_dir():
        raise SiteError(f"There is no folder {folder}: name the site's scans with --scans.")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise SiteError(f"The folder {folder} holds no files: name the site's scans with --scans.")
    files = [files[i] for i in space_evenly(len(files), MAX_SCANS)]
    scans, photographs, unreadable = [], 0, 0
    for file in files:
        try:
            scans.append(to_uint8(read_scan(file)))
        except NotAnMRIError:
            photographs += 1
        except ScanError:
            unreadable += 1
    if photographs > len(files) / 2:
        raise SiteError(
            f"{photographs} of {len(files)} files are colour photographs: choose scans of the head."
        )
    if not scans:
        raise SiteError(f"None of the {len(files)} files in {folder} can be read as a scan.")
    return Folder(np.stack(scans), photographs, unreadable)


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        0 on success, 2 with one sentence if the scans, the weights or the disk are at fault, 130
        when stopped.
    """
    args = _build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        check_free(args.out)  # before minutes of reading
        system = load(args.weights, hospital=args.hospital)
        found = read_folder(args.scans)
        figures = adapt(system, found.scans, args.prevalence)
        number = write_site(system, figures, args.weights, args.out)
    except (SiteError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing is written", file=sys.stderr)
        return 130
    print(describe(figures, found))
    print(f"written to {args.out} as hospital {number}: --weights {args.out}", file=sys.stderr)
    return 0


def describe(figures: SiteFigures, found: Folder) -> str:
    """Describe an adaptation: counts before and after, and what it assumes."""
    n, taken = figures.scans, figures.answers[0]
    lines = [
        f"scans: {n} used, {figures.refused} left out that cannot be judged, "
        f"{found.photographs} photographs, {found.unreadable} files not readable",
        f"detector: {figures.alarms_before} of {n} flagged before, {figures.alarms_after} after",
        f"answers 'tumour' before: {figures.tumours_before} of {n}",
    ]
    lines += [
        f"answers 'tumour' if {100 * a.prevalence:.0f} % have one, give or take {POINTS} points: "
        f"{a.tumours} of {n}{_describe_miss(a, n)} (log-odds {a.shift:+.2f})"
        f"{', as written' if a is taken else ''}"
        for a in figures.answers
    ]
    if figures.doubt:
        lines.append(f"doubt: {figures.doubt}; the folder may hold one class")
    lines.append(
        f"assumed, as it cannot be seen without labels: {100 * taken.prevalence:.0f} % of "
        "the scans have a tumour, and none is attacked"
    )
    return "\n".join(lines)


def _describe_miss(answers: Answers, n: int) -> str:
    """Describe that the share is not near the prevalence; empty where it is."""
    is_near = abs(answers.tumours / n - answers.prevalence) <= TOLERANCE + 1e-9
    return "" if is_near else f", missed, as no step of {GRID} keeps to it"


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train calibrate-site",
        description="Set a hospital's operating point and detector threshold for a new site from "
        "50 or more of its own scans, without labels, and write them as one more hospital. The "
        "log-odds of a tumour are shifted, in steps, by the least that brings the share of "
        f"'tumour' answers within {POINTS} percentage points of the prevalence; where no step "
        "does, the nearest is taken, and the output says so.",
    )
    parser.add_argument(
        "--scans", type=Path, required=True, metavar="DIR",
        help="folder of scans that are not attacked; of a volume the middle slice is read",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, metavar="DIR",
        help="weights to begin with, which are not changed (default: the published ones)",
    )  # fmt: skip
    parser.add_argument(
        "--hospital",
        type=int,
        metavar="N",
        help="hospital to begin with (default: the weights' own)",
    )
    parser.add_argument(
        "--prevalence", type=_parse_prevalence, metavar="P",
        help=f"share of the scans with a tumour (default: {ASSUMED} is assumed, and scans that "
        "look like one class are refused)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/site"), metavar="DIR",
        help="new folder of weights (default: runs/site)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, help="CPU threads")
    return parser


def _parse_prevalence(text: str) -> float:
    low, high = PREVALENCE_RANGE
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be a number from {low} to {high}, got {text!r}")
    return value
