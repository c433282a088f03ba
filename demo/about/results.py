"""Tables of the tab About, read from results/*.json and the weights' manifest when it is built."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from core.checkpoint import WEIGHTS, WeightsError, read_manifest

RESULTS = Path(__file__).parents[2] / "results"
DASH = "\N{EN DASH}"
PROTOCOLS = {
    "paper": "Br35H, random split as published: near-duplicates of test scans in training; "
    "pooled training",
    "leak-free": "Br35H, split by groups of near-duplicates; pooled training",
    "multi-source": "Br35H and Brain Tumor MRI, split by groups; the shipped weights, hospital 1's",
}
ROWS = {"clean": "clean", "A0": "PGD-7, eps .015", "A0-8bit": "the same, saved in 8 bits"}
SYSTEMS = {"undefended": "without defence", "defence": "with defence"}
LADDER = {**SYSTEMS, "trained-mixture": "the mixture alone, no detector, no purifier"}


def render_robustness(folder: Path = RESULTS) -> str:
    """Accuracy without and with defence, clean and attacked, for each kind of split."""
    lines = []
    for protocol, meaning in PROTOCOLS.items():
        result = _read(folder / f"robustness-{protocol}.json")
        for i, (row, name) in enumerate(ROWS.items()):
            cells = [format_accuracy(_at(result, "rows", row, "systems", s)) for s in SYSTEMS]
            flagged = format_percent(_at(result, "rows", row, "systems", "defence", "flagged"))
            first = f"<b>{protocol}</b><small>{escape(meaning)}</small>" if i == 0 else ""
            lines.append([first, name, *cells, flagged])
    head = ["split", "test scans", *SYSTEMS.values(), "flagged"]
    return render_table(head, lines, "Accuracy on test scans, with 95 % intervals")


def render_attack_suite(folder: Path = RESULTS) -> str:
    """Who is still read right after every attack of the ladder, and who was misread unseen."""
    standings = _at(_read(folder / "ladder-multi-source.json"), "standings")
    lines = [
        [name, *(format_accuracy(_at(standings, system, key)) for key in ("clean", "worst"))]
        for system, name in LADDER.items()
    ]
    head = ["system", "clean", "right after every attack"]
    caption = "Attackers who know the defence: the worst case of every scan, eps .015"
    found = _at(standings, "defence", "unnoticed", "attacked")
    unseen, misread = (_at(found, key) for key in ("unnoticed", "misread"))
    areas = (_at(standings, "defence", "detection", f"A9 ({way})", "auroc") for way in (1, 2))
    return (
        f"{render_table(head, lines, caption)}"
        f"<p>Of {_said(misread)} scans that attackers get misread behind the defence "
        f"{_said(unseen)} raise no alarm. Against attackers who know the "
        f"detector its AUROC is {' and '.join(map(format_number, areas))} "
        "(two ways; .5 is guessing).</p>"
    )


def render_detection(folder: Path = RESULTS) -> str:
    """How well the two scores tell attacked from clean scans."""
    result = _read(folder / "detection-multi-source.json")
    lines = []
    for target, whom in (("plain", "plain classifier"), ("trained", "trained mixture")):
        for eps in ("0.004", "0.015"):
            row = _at(result, "rows", f"{target}, eps {eps}", "scores")
            cells = [format_number(_at(row, s, "auroc")) for s in ("paper", "fused")]
            lines.append([f"PGD-7 on the {whom}, eps {eps}", *cells])
    head = ["attack", "the paper's score, AUROC", "fused score, AUROC"]
    return render_table(
        head, lines, "Attackers who do not know the detector: how well it tells them"
    )


def render_speed(folder: Path = RESULTS) -> str:
    """One sentence: how long a reading takes, and on what."""
    result = _read(folder / "latency-multi-source.json")
    row, on = _at(result, "rows", "read"), _at(result, "provenance", "timed_on")
    seconds = [_at(row, key) for key in ("median_ms", "p95_ms")]
    times = [DASH if s is None else f"{s / 1e3:.2f} s" for s in seconds]
    where = escape(str(_at(on, "device_name") or DASH))
    threads = _at(on, "threads") or DASH
    return f"One reading takes {times[0]} (95 %: below {times[1]}) on {where}, {threads} threads."


def render_provenance(folder: Path = RESULTS) -> str:
    """Where the tables come from: each file, when it was measured, with which code."""
    lines = []
    names = [f"robustness-{p}" for p in PROTOCOLS]
    names += [f"{name}-multi-source" for name in ("ladder", "detection", "latency")]
    for name in names:
        facts = _at(_read(folder / f"{name}.json"), "provenance")
        date, commit = (str(_at(facts, key) or DASH)[:10] for key in ("date", "commit"))
        lines.append(
            [f"<code>results/{name}.json</code>", escape(date), f"<code>{escape(commit)}</code>"]
        )
    return render_table(["file", "measured", "code"], lines, "Where these figures come from")


def render_weights(folder: Path = WEIGHTS) -> str:
    """The shipped files as their manifest describes them."""
    try:
        files = read_manifest(folder)
    except WeightsError:
        files = {}
    lines = [
        [
            f"<code>{escape(name)}</code>",
            f"{info.bytes / 1e6:.2f} MB",
            escape(info.preset),
            escape(info.protocol),
            f"<code>{escape(info.commit[:10])}</code>",
            f"<code>{escape(info.sha256[:16])}</code>",
        ]
        for name, info in files.items()
    ]
    head = ["file", "size", "preset", "trained on", "code", "sha256 begins"]
    return render_table(head, lines or [[DASH] * len(head)], "The weights")


def format_accuracy(cells: Any) -> str:
    """'93.3 % [90.2 to 95.8] 448/480' from one system's figures, or a dash."""
    share, k, n = (_at(cells, key) for key in ("accuracy", "k", "n"))
    if share is None or k is None or n is None:
        return DASH
    interval = _at(cells, "interval_by_group") or _at(cells, "interval")
    span = "[{:.1f} to {:.1f}] ".format(*(100 * end for end in interval)) if interval else ""
    return f"<b>{share * 100:.1f} %</b> <small>{span}{k}/{n}</small>"


def format_percent(share: Any) -> str:
    return DASH if share is None else f"{share * 100:.1f} %"


def _said(count: Any) -> str:
    return DASH if count is None else str(count)


def format_number(value: Any) -> str:
    return DASH if value is None else f"{value:.3f}"


def render_table(head: Iterable[str], lines: Iterable[Iterable[str]], caption: str) -> str:
    """A table whose first column names its rows; cells are HTML."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ""
    for first, *rest in lines:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        name = f'<th scope="row">{first}</th>' if first else "<td></td>"
        body += f"<tr>{name}{cells}</tr>"
    return (
        f'<div class="mf-scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="mf-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _read(path: Path) -> Any:
    """A result file, or None where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _at(value: Any, *keys: str) -> Any:
    """What lies at a path of keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
