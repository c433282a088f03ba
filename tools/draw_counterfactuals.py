"""Command that draws what turns each classifier's answer to the six synthetic example scans.

python -m tools.draw_counterfactuals
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import core
from core.pipeline import MedFedPure
from core.scan import from_uint8, to_uint8
from demo.analysis.counterfactual import Change, search_changes
from demo.examples import load_examples
from demo.rendering import wording
from demo.rendering.counterfactual import MAX_LEVELS, count_levels
from demo.rendering.images import colour_change

FILE = Path(__file__).resolve().parents[1] / "docs" / "counterfactuals.jpg"
SIDE, GAP, TITLE = 168, 8, 22  # pixels of a picture, between pictures, and of a line of words
COLUMNS = ("scan", "mixture: changed scan", "its change", "plain: changed scan", "its change")
INK, PAPER = (20, 24, 32), (255, 255, 255)


def draw_sheet(system: MedFedPure, scans: Sequence[Tensor]) -> Image.Image:
    """Draw one row for each scan (1, 224, 224): the scan, and both classifiers' changes of it."""
    width = len(COLUMNS) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, TITLE + len(scans) * (SIDE + TITLE + GAP)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, title in enumerate(COLUMNS):
        pen.text((column * (SIDE + GAP), 2), title, INK, font)
    for row, scan in enumerate(scans):
        *_, changes = search_changes(system, scan)
        top = TITLE + row * (SIDE + TITLE + GAP)
        for column, (pixels, words) in enumerate(_list_pictures(scan, changes)):
            place = column * (SIDE + GAP), top
            sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE)), place)
            pen.text((place[0], top + SIDE + 2), words, INK, font)
    return sheet


def _list_pictures(scan: Tensor, changes: Sequence[Change]) -> list[tuple[np.ndarray, str]]:
    """Return pixels (H, W, 3) and words of each picture of a row."""
    said = ", ".join(wording.name_class(change.before) for change in changes)
    found = [(_to_rgb(scan), f"read: {said}")]
    for change in changes:
        words = f"read: {wording.name_class(change.after)}"
        largest = count_levels(scan, change.scan)
        found.append((_to_rgb(change.scan), words if change.has_turned else f"still {words}"))
        found.append(
            (colour_change(scan, change.scan, MAX_LEVELS), f"at most {largest} of 255 levels")
        )
    return found


def _to_rgb(scan: Tensor) -> np.ndarray:
    return np.repeat(to_uint8(scan)[0][..., None], 3, axis=2)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=FILE, help="picture (default: the document's)")
    args = parser.parse_args(argv)
    scans = [from_uint8(example.levels) for example in load_examples()]
    draw_sheet(core.load(), scans).save(args.out, quality=82)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
