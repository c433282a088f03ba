"""Command that writes thumbnails of the training scans, for `tools.make_examples`.

    python -m tools.thumbnails --data FOLDER --out thumbnails.npy

Do not publish the file, although the thumbnails are too small to show anatomy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.parallel import say
from train.data.errors import DataError
from train.data.near_duplicates import compute_thumbnails, list_orientations
from train.data.sources import find_data_root, load_scans
from train.data.split import PROTOCOLS, read_manifest


def compute_orientations(scans: np.ndarray) -> np.ndarray:
    """Return thumbnails (8 N, 576) of scans (N, H, W) uint8 in all orientations."""
    return np.concatenate(list_orientations(compute_thumbnails(scans)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 2 after a sentence if the input is at fault."""
    args = _build_parser().parse_args(argv)
    try:
        root = args.data or find_data_root()
        if root is None:
            raise DataError("name the folder of the data sets with --data or MEDFEDPURE_DATA")
        manifest = read_manifest(args.protocol)
        records = [manifest.entries[i].record for i in manifest.find_positions("train", "val")]
        scans = load_scans(root, records, args.cache)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    np.save(args.out, compute_orientations(scans))
    say(f"{len(records)} training and validation scans, turned and mirrored too, in {args.out}")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.thumbnails", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--data", type=Path, help="folder of the data sets (or set MEDFEDPURE_DATA)")
    add(
        "--protocol",
        default="patients",
        choices=list(PROTOCOLS),
        help="split of the training scans",
    )
    add("--cache", type=Path, default=Path(".cache"), help="folder of decoded scans")
    add("--out", type=Path, default=Path(".cache/thumbnails.npy"), help="file to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
