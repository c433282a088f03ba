"""Draws the figures; writes tables between `<!-- results:NAME -->` and `<!-- /results -->`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import commands
from bench.markdown import Results
from bench.parallel import say
from bench.report import figures
from core.checkpoint import write_atomic

HELP = "draws the figures and writes the tables of the docs"
PAGES = (Path("README.md"), Path("docs") / "results.md", Path("docs") / "federation.md")
FIGURES = Path("docs")
_BLOCK = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="folder of the result files")
    add(
        "--pages", type=Path, nargs="+", metavar="FILE",
        help="files that hold the markers; by default " + " and ".join(map(str, PAGES)),
    )  # fmt: skip
    add("--figures", type=Path, default=FIGURES, metavar="FOLDER", help="folder of the figures")
    add("--check", action="store_true", help="change nothing; exit 1 if anything is out of date")


def run(args: argparse.Namespace) -> int:
    """Writes the tables and the figures."""
    return write(args.results, args.pages or PAGES, args.figures, args.check)


def write(results: Path, pages: Sequence[Path], folder: Path = FIGURES, check: bool = False) -> int:
    """Replaces every table between markers and draws the figures whose results exist.

    With `check` it only compares, figures by the data that they are drawn from, and returns 1
    where one differs.

    Raises:
        ValueError: a page is missing, or a marker names no known table; nothing is written then.
    """
    content = read_results(results)
    written: dict[Path, bytes] = {}
    for target in pages:
        if not target.is_file():
            raise ValueError(f"there is no {target}")
        before = target.read_text(encoding="utf-8")
        after = fill(before, content)
        if before != after:
            written[target] = after.encode()
    drawn_from = figures.read_all(content)
    stale = [folder / name for name in drawn_from
             if not _holds(folder / name, figures.data_key(drawn_from[name]))]  # fmt: skip
    if check:
        for target in (*written, *stale):
            print(f"{target} is out of date: run `python -m bench report`", file=sys.stderr)
        return int(bool(written or stale))
    written |= {folder / name: svg for name, svg in figures.draw_all(content).items()}
    for target, data in written.items():
        write_atomic(target, data)
        say(f"wrote {target}")
    return 0


def _holds(figure: Path, key: str) -> bool:
    return figure.is_file() and f"data {key}" in figure.read_text(encoding="utf-8")


def read_results(folder: Path) -> Results:
    """Reads every result file, by its stem."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def fill(text: str, results: Results) -> str:
    """Returns `text` with each marked block replaced by its table, or by a line if not measured."""
    if text.count("<!-- results:") != len(_BLOCK.findall(text)):
        raise ValueError("every `<!-- results:NAME -->` needs its `<!-- /results -->`")

    known = commands.tables()

    def replace(match: re.Match[str]) -> str:
        opening, name, _, closing = match.groups()
        if name not in known:
            raise ValueError(f"unknown table {name!r}: choose from {', '.join(known)}")
        try:
            table = known[name](results)
        except KeyError as error:
            table = f"Not measured yet (`results/{error.args[0]}` is missing)."
        return f"{opening}{table}\n{closing}"

    return _BLOCK.sub(replace, text)
