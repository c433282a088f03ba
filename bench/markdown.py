"""Markdown of results: tables, percentages, intervals, provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = dict[str, Any]
Results = Mapping[str, Result]  # file stem -> content
Renderer = Callable[[Results], str]

PROTOCOLS = ("paper", "patients")
SUITE_NAMES = (*PROTOCOLS, *(f"full-{protocol}" for protocol in PROTOCOLS))  # of the full budget


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def results_of(results: Results, command: str, names: Sequence[str]) -> dict[str, Result]:
    """Return a command's results by protocol. Raises KeyError, naming a file, without any."""
    stems = {name: f"{command}-{name}" if name else command for name in names}
    found = {name: results[stem] for name, stem in stems.items() if stem in results}
    if not found:
        raise KeyError(" or ".join(f"{stem}.json" for stem in stems.values()))
    return found


def percent(value: float | None) -> str:
    """Format a share in percent; empty for None."""
    return "" if value is None else f"{100 * value:.1f}"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number, rounded; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def p_value(test: Result | None) -> str:
    """Formats the p of a test; empty without one."""
    if not test:
        return ""
    return "< 0.001" if test["p"] < 0.001 else number(test["p"])


def span(interval: Sequence[float]) -> str:
    """Format an interval of a share in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def share(figure: Result) -> str:
    """Format what `share_by_unit` found; empty of no scans."""
    return f"{percent(figure['value'])} [{span(figure['interval'])}]" if figure["n"] else ""


def accuracy(block: Result | None) -> str:
    """Format an accuracy with its intervals, by scan and where known by group; empty for None."""
    if not block:
        return ""
    known = [block[k] for k in ("interval", "interval_by_group") if k in block]
    intervals = "; ".join(span(interval) for interval in known)
    return f"{percent(block['accuracy'])} [{intervals}] {block['k']}/{block['n']}"


def recall(kinds: Mapping[str, Result]) -> str:
    """Format the share of correct scans of each kind."""
    return ", ".join(
        f"{kind} {percent(part['accuracy'])} ({part['k']}/{part['n']})"
        for kind, part in kinds.items()
    )


def by_class(kinds: Mapping[str, Result]) -> str:
    """Format the shares of correct scans with a tumour, of any kind, and without one."""
    if not kinds:
        return ""
    clear = [part for kind, part in kinds.items() if kind == "no tumour"]
    sick = [part for kind, part in kinds.items() if kind != "no tumour"]
    shares = ((sum(p["k"] for p in parts), sum(p["n"] for p in parts)) for parts in (sick, clear))
    return " / ".join(percent(k / n) if n else "" for k, n in shares)


def area(block: Result) -> str:
    """Format an AUROC with its interval, where that is known."""
    text = number(block["auroc"])
    if "interval" not in block:
        return text
    low, high = block["interval"]
    return f"{text} [{number(low)} to {number(high)}]"


def source(result: Result) -> str:
    """Format the provenance of rows: date, commit, machines, and the file's warnings."""
    parts = [p for row in result["rows"].values() for p in (row, *row.get("additions", ()))]
    facts = [{**result["provenance"], **part} for part in parts]
    dates = sorted({f["date"][:10] for f in facts})
    machines = {f"{f['machine']['device_name']}, {f['machine']['threads']} threads" for f in facts}
    text = f"Measured {' to '.join({dates[0]: '', dates[-1]: ''})}, "
    text += f"commit {', '.join(dict.fromkeys(map(_commit, facts)))}; "
    text += f"{'; '.join(sorted(machines))}."
    return text + "".join(f" Warning: {warning}." for warning in result["warnings"])


def _commit(facts: Result) -> str:
    if not facts["commit"]:
        return "unknown"
    commit: str = facts["commit"][:10]
    return commit + (" with changes" if facts.get("dirty") else "")
