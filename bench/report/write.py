"""Writes the report page, and tables between `<!-- results:NAME -->` and `<!-- /results -->`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import commands
from bench.markdown import Renderer, Results
from bench.progress import say
from bench.report import headline, page
from core.checkpoint import write_atomic

HELP = "draws results/report.html and writes the documents' tables"
PAGES = (Path("README.md"), Path("docs") / "results.md", Path("docs") / "federation.md")
REPORT = "report.html"  # beside the results
_BLOCK = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), help="folder of the result files")
    add(
        "--pages", type=Path, nargs="+", metavar="FILE",
        help="files that hold the markers; by default " + " and ".join(map(str, PAGES)),
    )  # fmt: skip
    add("--check", action="store_true", help="change nothing; exit 1 if anything is out of date")


def run(args: argparse.Namespace) -> int:
    """Writes the report and the tables."""
    return write(args.results, args.pages or PAGES, args.check)


def tables() -> dict[str, Renderer]:
    """Returns the renderer of every marker."""
    return {"glance": headline.glance, **commands.tables()}


def write(results: Path, pages: Sequence[Path], check: bool = False) -> int:
    """Writes the report page and replaces every table between markers.

    With `check` it only compares, and returns 1 where one differs.

    Raises:
        ValueError: a page is missing, or a marker names no known table; nothing is written then.
    """
    found, written = read_results(results), {}
    for target in pages:
        if not target.is_file():
            raise ValueError(f"there is no {target}")
        before = target.read_text(encoding="utf-8")
        after = fill(before, found)
        if before != after:
            written[target] = after
    report, drawn = results / REPORT, page.page(found)
    if not report.is_file() or report.read_text(encoding="utf-8") != drawn:
        written[report] = drawn
    for target, text in written.items():
        if check:
            print(f"{target} is out of date: run `python -m bench report`", file=sys.stderr)
        else:
            write_atomic(target, text.encode())
            say(f"wrote {target}" if target == report else f"wrote the tables of {target}")
    return int(check and bool(written))


def read_results(folder: Path) -> Results:
    """The content of every result file by its stem."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def fill(text: str, results: Results) -> str:
    """`text` with each marked block replaced by its table, or by a line where none is measured."""
    if text.count("<!-- results:") != len(_BLOCK.findall(text)):
        raise ValueError("every `<!-- results:NAME -->` needs its `<!-- /results -->`")

    known = tables()

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
