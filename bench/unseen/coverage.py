"""The command `coverage`: risk against coverage on sources that the weights never saw.

The least familiar or least confident scans of a source are refused, and the rest is judged: at the
hospital's operating point, and at the one set from `SITE_SCANS` of its scans without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from bench import markdown as md
from bench import options
from bench.components.out_of_distribution import score_novelty
from bench.intervals import draw_balanced_accuracy, draw_units, find_interval
from bench.result_file import ResultFile
from bench.robustness.attacks import CLEAN
from bench.summaries import group_rows
from bench.unseen.overlap import find_used_units, open_any_system
from bench.unseen.run import read_scans
from core.pipeline import MedFedPure
from core.site.operating_point import find_shift
from train.data.dataset import ScanDataset, space_evenly
from train.data.split import PROTOCOLS, Manifest

HELP = "risk against coverage on sources that the weights never saw, and sites without labels"
REFUSED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
MOST_REFUSED = 0.2  # the share whose gain has an interval
SITE_SCANS = 100
PREVALENCE = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size", "--fold")


def run(args: argparse.Namespace) -> None:
    """Measures weights, which may have been trained on another split."""
    system, trained = open_any_system(args)
    store = options.open_results(args, system)
    measure(store, system.pipeline, options.open_fold(args), trained, args.batch_size)
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    fold: ScanDataset,
    trained: Manifest,
    batch_size: int = 32,
) -> None:
    """Fills `store`: a row a source with both classes, of its scans of units never trained on."""
    if fold.manifest is None:
        raise ValueError("the scans have no manifest that names their patients")
    used = find_used_units(fold.manifest, trained)
    for source, rows in group_rows(fold.sources).items():
        some = fold.pick([i for i in rows if fold.groups[i] not in used])
        if len(some) and 0 < int(some.labels.sum()) < len(some):
            store.row(source, lambda part=some: _measure_source(pipeline, part, batch_size))


def _measure_source(pipeline: MedFedPure, part: ScanDataset, batch_size: int) -> dict[str, Any]:
    log_odds = read_scans(pipeline, part, CLEAN, batch_size).log_odds["defence"]
    novelty = score_novelty(pipeline, part.scans, batch_size).double()
    return measure_site(log_odds, novelty, part)


def measure_site(log_odds: Tensor, novelty: Tensor | None, part: ScanDataset) -> dict[str, Any]:
    """Measure a source before and after its operating point is set without labels.

    The `SITE_SCANS` that set it are left out of the figures.

    Args:
        log_odds: (N,) of a tumour.
        novelty: (N,) out-of-distribution score; None: refused by confidence alone.
        part: the N scans of the source.
    """
    site = space_evenly(len(part), min(SITE_SCANS, len(part) // 2))
    rest = sorted(set(range(len(part))) - set(site))
    shift = find_shift(log_odds[site], PREVALENCE)
    y, units = part.labels[rest], [part.groups[i] for i in rest]
    unknown = None if novelty is None else novelty[rest]
    return {
        "n": len(rest),
        "tumours": int(y.sum()),
        "units": len(set(units)),
        "site_scans": len(site),
        "shift": shift,
        "before": measure_coverage(log_odds[rest], unknown, y, units),
        "after": measure_coverage(log_odds[rest] + shift, unknown, y, units),
    }


def measure_coverage(
    log_odds: Tensor, novelty: Tensor | None, y: Tensor, units: Sequence[int]
) -> dict[str, Any]:
    """Compute the curve of each score, and the gain where `MOST_REFUSED` are refused.

    Args:
        log_odds: (N,) of a tumour.
        novelty: (N,) out-of-distribution score; None: refused by confidence alone.
        y: (N,) labels.
        units: (N,) patients or groups of near-duplicates, for the interval.
    """
    right, times = (log_odds >= 0) == (y == 1), draw_units(units)
    doubts = {"confidence": -log_odds.abs()}
    if novelty is not None:
        both = _rank(novelty) + _rank(doubts["confidence"])
        doubts = {"novelty": novelty, **doubts, "both": both}
    whole, drawn = balance(right, y), draw_balanced_accuracy(times, right, y)
    found = {}
    for name, doubt in doubts.items():
        kept = keep(doubt, MOST_REFUSED)
        value, gain, interval = balance(right[kept], y[kept]), None, None
        if value is not None and whole is not None:
            gain = value - whole
            moved = draw_balanced_accuracy(times[:, kept], right[kept], y[kept]) - drawn
            interval = find_interval(moved)
        curve = [balance(right[rows], y[rows]) for rows in (keep(doubt, r) for r in REFUSED)]
        found[name] = {"curve": curve, "gain": gain, "interval": interval}
    return found


def keep(doubt: Tensor, refused: float) -> Tensor:
    """Return the rows that stay, in order, when the share with the most doubt is refused."""
    count = round((1 - refused) * len(doubt))
    return doubt.argsort(stable=True)[:count].sort().values


def balance(right: Tensor, y: Tensor) -> float | None:
    """Return the mean of recall and specificity; None where a class is missing."""
    parts = [right[y == label].double() for label in (0, 1)]
    return float(sum(p.mean() for p in parts)) / 2 if all(len(p) for p in parts) else None


def _rank(values: Tensor) -> Tensor:
    return values.argsort(stable=True).argsort().double()


def table(results: md.Results) -> str:
    """Renders the curves."""
    lines = [
        line
        for protocol, result in md.results_of(results, "coverage", tuple(PROTOCOLS)).items()
        for source, row in result["rows"].items()
        for line in render_site([protocol, f"{source}, {row['n']}"], row)
    ]
    return render_table(["protocol", "source, scans"], lines)


def render_site(first: list[str], row: md.Result) -> Iterator[list[str]]:
    """Render what `measure_site` found: a row of cells for each operating point and score."""
    for place in ("before", "after"):
        for name, found in row[place].items():
            curve = map(md.percent, found["curve"])
            yield [*first, place, name, *curve, _render_gain(found)]


def render_table(first: list[str], lines: list[list[str]]) -> str:
    """Render a table of rows of `render_site`; `first` names their first columns."""
    shares = [f"{100 * share:.0f} % refused" for share in REFUSED]
    head = [*first, "site's operating point", "refused by", *shares]
    return md.table([*head, "gain at 20 %, points [95 %]"], lines)


def _render_gain(found: md.Result) -> str:
    if found["gain"] is None:
        return ""
    return f"{100 * found['gain']:+.1f} [{md.span(found['interval'])}]"
