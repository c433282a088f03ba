"""HTML around plots: figures side by side, what they show, and which file they come from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from bench.markdown import Result, source


class Panel(NamedTuple):
    """One plot: a title, the SVG, and what must be said with it."""

    title: str
    svg: str
    caption: str


def group(stem: str, result: Result, n: str, panels: Sequence[Panel], note: str) -> str:
    """The plots of one result file under its protocol; `n` says how many scans, `note` the rest."""
    figures = "\n".join(
        f"<figure>\n<h4>{escape(p.title)}</h4>\n{p.svg}\n"
        f"<figcaption>{escape(p.caption)}</figcaption>\n</figure>"
        for p in panels
    )
    said = f"{name_of(result)}; {n}. {note}"
    return (
        f"<h3>{escape(protocol_of(result))}</h3>\n<div class=\"grid\">\n{figures}\n</div>\n"
        f'<p class="note">{escape(said)} From <code>results/{escape(stem)}.json</code>. '
        f"{escape(source(result))}</p>"
    )  # fmt: skip


def name_of(result: Result) -> str:
    """Protocol and fold."""
    fold = result["provenance"].get("settings", {}).get("fold", "test")
    return f"Protocol {protocol_of(result)}, {'validation' if fold == 'val' else fold} fold"


def protocol_of(result: Result) -> str:
    """The split that was measured."""
    return str(result["provenance"].get("protocol", "unknown protocol"))


def scans(n: int) -> str:
    """How many, as captions say it."""
    return f"n = {n} scans"


def absent(files: str, why: str = "is missing") -> str:
    """Stands where a plot's figures have not been measured."""
    return (
        f'<p class="absent">Not measured yet (<code>results/{escape(files)}</code> '
        f"{escape(why)}).</p>"
    )


def older(stem: str, what: str) -> str:
    """Stands where a result file was written before it held what the plot needs."""
    return absent(f"{stem}.json", f"holds no {what}: it was written by older code, or in part")
