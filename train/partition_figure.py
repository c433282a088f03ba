"""Command `python -m train partition`: each client's scans, as a table and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from train.config import PresetError, list_presets, read_preset
from train.data import split
from train.data.corpus import PROTOCOLS, load_corpus
from train.data.errors import DataError
from train.data.partition import KINDS, PartitionConfig, Row, assign, list_rows
from train.data.sources import find_data_root
from train.data.split import FOLDS, read_manifest

COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee",
    "#aa3377", "#bbbbbb", "#332288", "#999933", "#882255",
)  # fmt: skip
BAR, GAP, LEFT, WIDTH, TOP = 22, 10, 90, 620, 78  # pixels


def count_scans(
    rows: Sequence[Row], clients: Sequence[int]
) -> dict[int, Counter[tuple[str, str, int]]]:
    """Count the scans of each client by (fold, source, label)."""
    found: dict[int, Counter[tuple[str, str, int]]] = {c: Counter() for c in sorted(set(clients))}
    for row, client in zip(rows, clients, strict=True):
        found[client][row.fold, row.source, row.label] += 1
    return found


def draw(
    rows: Sequence[Row], clients: Sequence[int], config: PartitionConfig, title: str
) -> Image.Image:
    """Draw each client's training scans as a bar by source and label, all folds in numbers."""
    found, font = count_scans(rows, clients), ImageFont.load_default(13)
    cells = sorted({(row.source, row.label) for row in rows})
    longest = max(_count_fold(c, "train") for c in found.values())
    names = {client: config.name_client(client) for client in found}
    left = max(LEFT, 24 + int(max(font.getlength(name) for name in names.values())))
    places = _place_legend([f"{source}, label {label}" for source, label in cells], left + WIDTH)
    top = TOP + places[-1][1]
    height = top + len(found) * (BAR + GAP) + GAP
    picture = Image.new("RGB", (left + WIDTH + 190, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((12, 10), title, "black", ImageFont.load_default(16))
    for cell, (x, y), colour in zip(cells, places, _choose_colours(len(cells)), strict=True):
        pen.rectangle((x, y + 44, x + 12, y + 56), colour)
        pen.text((x + 18, y + 42), f"{cell[0]}, label {cell[1]}", "black", font)
    for line, (client, mine) in enumerate(found.items()):
        y, x = top + line * (BAR + GAP), float(left)
        pen.text((12, y + 3), names[client], "black", font)
        for cell, colour in zip(cells, _choose_colours(len(cells)), strict=True):
            step = WIDTH * mine["train", *cell] / longest
            pen.rectangle((x, y, max(x, x + step - 1), y + BAR), colour) if step else None
            x += step
        folds = " / ".join(str(_count_fold(mine, fold)) for fold in FOLDS)
        pen.text((left + WIDTH + 14, y + 3), folds, "black", font)
    pen.text((left + WIDTH + 14, 42), " / ".join(FOLDS), "black", font)
    return picture


def _place_legend(texts: Sequence[str], right: int) -> list[tuple[float, int]]:
    """Return x, and y below the first line, of each text; a text past `right` begins a line."""
    font, places = ImageFont.load_default(13), []
    x, y = 12.0, 0
    for text in texts:
        width = 36 + font.getlength(text)
        if x + width > right and x > 12:
            x, y = 12.0, y + 20
        places.append((x, y))
        x += width
    return places


def main(argv: list[str]) -> int:
    """Run the command line.

    Returns:
        0, or 2 after a sentence if the input or the disk is at fault.
    """
    parser = argparse.ArgumentParser(
        prog="python -m train partition",
        description="Deal a protocol's scans to a preset's clients and draw each client's share.",
    )
    parser.add_argument("--preset", default="sites", metavar="NAME", help=", ".join(list_presets()))
    parser.add_argument("--protocol", default="patients", choices=PROTOCOLS)
    parser.add_argument("--kind", choices=KINDS, help="instead of the preset's")
    parser.add_argument("--data", type=Path, help="needed only for cifar10 and folder")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--out", type=Path, default=Path("results"), help="default: results")
    args = parser.parse_args(argv)
    try:
        config = read_preset(args.preset).federated.partition
        config = replace(config, kind=args.kind or config.kind)
        rows = _load_rows(args.protocol, args.data or find_data_root(), args.cache)
        clients = assign(rows, config)
        path = args.out / f"partition-{args.protocol}-{config.kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(rows, clients, config, f"{args.protocol}: {_describe(config)}").save(path)
    except (DataError, PresetError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for client, mine in count_scans(rows, clients).items():
        cells = "  ".join(f"{'/'.join(map(str, cell))} {n}" for cell, n in sorted(mine.items()))
        print(f"{config.name_client(client)}: {cells}")
    print(f"written to {path}", file=sys.stderr)
    return 0


def _load_rows(protocol: str, root: Path | None, cache: Path) -> list[Row]:
    if protocol in split.PROTOCOLS:
        return list_rows(read_manifest(protocol))
    if root is None:
        raise DataError("name the data folder with --data, or set MEDFEDPURE_DATA")
    return list_rows(load_corpus(protocol, root, cache))


def _describe(config: PartitionConfig) -> str:
    kind = {
        "iid": "same mix everywhere",
        "dirichlet": f"Dirichlet({config.concentration:g})",
        "site": "by site",
    }[config.kind]
    shift = ", scanners differ" if config.scanner.is_on else ""
    return f"{config.num_clients} clients, {kind}{shift}, seed {config.seed}"


def _count_fold(mine: Counter[tuple[str, str, int]], fold: str) -> int:
    return sum(n for (name, _, _), n in mine.items() if name == fold)


def _choose_colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]
