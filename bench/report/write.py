"""Writes the report page, and tables between `<!-- results:NAME -->` and `<!-- /results -->`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import part_tables
from bench.components import certify_table
from bench.federation import baseline_tables, pooled_table
from bench.federation import tables as federation_tables
from bench.markdown import Renderer, Results
from bench.progress import say
from bench.report import headline, page
from bench.robustness import old_tables
from bench.robustness import tables as ladder_tables
from core.checkpoint import write_atomic

TABLES: dict[str, Renderer] = {
    "glance": headline.glance,
    "robustness": old_tables.robustness,
    "figures": old_tables.figures,
    "sources": old_tables.sources,
    "mixture": old_tables.mixture,
    "loso": old_tables.loso,
    "detection": part_tables.detection,
    "purifier": part_tables.purifier,
    "mae": part_tables.mae,
    "novelty": part_tables.novelty,
    "certify": certify_table.certify,
    "looks": part_tables.looks,
    "demo": part_tables.demo,
    "latency": part_tables.latency,
    "methods": baseline_tables.methods,
    "evasion": baseline_tables.evasion,
    "ladder": ladder_tables.ladder,
    "ladder-sources": ladder_tables.ladder_sources,
    "ladder-detection": ladder_tables.ladder_detection,
    "ladder-curve": ladder_tables.ladder_curve,
    "pooled": pooled_table.pooled,
    "federation": federation_tables.federation,
}
PAGES = (Path("README.md"), Path("docs") / "results.md", Path("docs") / "federation.md")
REPORT = "report.html"  # beside the results
_BLOCK = re.compile(r"(<!-- results:([\w-]+) -->\n)(.*?)(<!-- /results -->)", re.DOTALL)


def run(results: Path, pages: Sequence[Path], check: bool = False) -> int:
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

    def replace(match: re.Match[str]) -> str:
        opening, name, _, closing = match.groups()
        if name not in TABLES:
            raise ValueError(f"unknown table {name!r}: choose from {', '.join(TABLES)}")
        try:
            table = TABLES[name](results)
        except KeyError as error:
            table = f"Not measured yet (`results/{error.args[0]}` is missing)."
        return f"{opening}{table}\n{closing}"

    return _BLOCK.sub(replace, text)
