"""The command `labels`: disputed labels and odd scans of a whole data set, listed.

Nothing is removed by it: each list is for a reader to judge. All folds take part, because no
setting and no network that ships is chosen by it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.labels import odd, pictures
from bench.labels.cross_validation import Course, deal_units, read_part, shrink
from bench.labels.disputes import MAX_PROBABILITY, calibrate_log_odds, find_disputed
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from bench.summaries import group_rows
from core import metrics
from train.config import read_preset
from train.data.corpus import load_all
from train.data.dataset import ScanDataset
from train.data.near_duplicates import compute_thumbnails, list_orientations
from train.data.split import PATIENTS
from train.data.split_patients import find_duplicates

HELP = "labels that cross-validation disputes, and odd scans, of the whole data set"
DIGITS = 3  # of stored log-odds

Pairs = Sequence[tuple[int, int]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--repeats", type=int, default=3, help="cross-validations, each of its own parts and seeds")
    add("--parts", type=int, default=5, help="parts of a cross-validation")
    add("--scans", type=int, default=10240, help="scans drawn to train each network")
    add("--preset", default="default", help="preset whose table 'plain' trains the networks")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--odd-only", action="store_true", help="find odd scans alone, without networks")
    add("--batch-size", **options.MORE["--batch-size"])
    options.add_places(parser)
    parser.set_defaults(out=Path("results/labels.json"))


def run(args: argparse.Namespace) -> None:
    """Lists odd scans, reads every scan out of fold in every repeat, lists disputed labels."""
    if args.repeats < 1 or args.parts < 2 or args.scans < 1:
        raise ValueError("--repeats and --scans must be at least 1 and --parts at least 2")
    preset, device = read_preset(args.preset), options.device_of(args)
    root = options.root_of(args)
    data = load_all(PATIENTS, root, cache=args.cache, manifests=args.manifests)
    if data.manifest is None:
        raise ValueError(f"protocol {PATIENTS!r} has no manifest")
    store = ResultFile(
        args.out,
        args.command,
        {
            "protocol": PATIENTS,
            "manifest_sha256": data.manifest.sha256,
            "settings": options.settings_of(args),
        },
        {"machine": machine_facts(device)},
        args.fresh,
    )
    pairs: list[tuple[int, int]] = []

    def find_pairs() -> Pairs:
        if not pairs:
            pairs.extend(find_duplicates([e.record for e in data.entries], data.scans))
        return pairs

    store.row("odd", lambda: list_odd(data, root, find_pairs()))
    if not args.odd_only:
        course = Course(preset, args.scans, args.batch_size, device)
        audit(store, data, course, args.repeats, args.parts, find_pairs)
    store.close()


def list_odd(data: ScanDataset, root: Path, pairs: Pairs) -> dict[str, Any]:
    """List the odd scans by kind, and count them by source."""
    found: dict[str, list[dict[str, Any]]] = {k: [] for k in (*odd.KINDS, *pictures.LIMITS)}
    for kind, row, others in odd.find_odd_files(data.entries, pairs):
        item = {**odd.describe(data.entries[row]), "beside": [data.entries[i].file for i in others]}
        if kind in odd.OF_PAIRS:
            item["correlation"] = correlate_thumbnails(data.scans, row, others)
        found[kind].append(item)
    looked = pictures.find_odd_pictures(data.scans)
    looked += pictures.find_coloured(root, [e.record for e in data.entries])
    for kind, row, value in looked:
        found[kind].append({**odd.describe(data.entries[row]), "value": round(value, DIGITS)})
    return {
        "n": len(data),
        "limits": {kind: limit for kind, (limit, _) in pictures.LIMITS.items()},
        "counts": {kind: count_sources(items) for kind, items in found.items()},
        "scans": found,
    }


def correlate_thumbnails(scans: np.ndarray, row: int, others: Sequence[int]) -> float:
    """Return the largest correlation of a scan with others, thumbnails in any orientation."""
    thumbs = compute_thumbnails(scans[[row, *others]])
    return round(max(float((form @ thumbs[0]).max()) for form in list_orientations(thumbs[1:])), 4)


def audit(
    store: ResultFile, data: ScanDataset, course: Course, repeats: int, parts: int, find_pairs: Any
) -> None:
    """Fill `store`: the log-odds of each repeat and part, then the list of disputed labels."""
    small = shrink(data, max(course.preset.system.plain.sides))
    calibrated = []
    for repeat in range(repeats):
        dealt = deal_units(data.entries, parts, repeat)
        log_odds = torch.zeros(len(data), dtype=torch.float64)
        for part in range(parts):
            out = [i for i, number in enumerate(dealt) if number == part]
            row = store.row(
                f"repeat {repeat}, part {part}",
                lambda out=out, seed=repeat * parts + part: measure_part(small, out, course, seed),
            )
            log_odds[out] = read_numbers(row["log_odds"])
        calibrated.append(calibrate_log_odds(log_odds, dealt, data))
    store.row("disputed", lambda: list_disputed(data, torch.stack(calibrated), find_pairs()))


def measure_part(
    data: ScanDataset, out: Sequence[int], course: Course, seed: int
) -> dict[str, Any]:
    """Return the row of a part: its out-of-fold log-odds in the order of the manifest."""
    if not out:
        return {"n": 0, "log_odds": ""}
    log_odds = read_part(data, out, course, seed)
    right = (log_odds >= 0) == (data.labels[list(out)] == 1)
    return {
        "n": len(out),
        "seed": seed,
        "accuracy": float(right.double().mean()),
        "log_odds": " ".join(f"{value:.{DIGITS}f}" for value in log_odds.tolist()),
    }


def read_numbers(text: str) -> Tensor:
    """Parse numbers separated by spaces, float64."""
    return torch.tensor([float(word) for word in text.split()], dtype=torch.float64)


def list_disputed(data: ScanDataset, calibrated: Tensor, pairs: Pairs) -> dict[str, Any]:
    """List the disputed scans with their calibrated log-odds (R, N), and count them by source.

    'contrary' are near-duplicates with the other label, 'agreeing' those with the same one.
    """
    partners, labels, found = odd.list_partners(pairs), data.labels.tolist(), []
    for row in find_disputed(calibrated, data.labels):
        others = partners.get(row, [])
        found.append({
            **odd.describe(data.entries[row]),
            "log_odds": [round(value, DIGITS) for value in calibrated[:, row].tolist()],
            "contrary": [data.entries[i].file for i in others if labels[i] != labels[row]],
            "agreeing": sum(labels[i] == labels[row] for i in others),
        })  # fmt: skip
    mean = calibrated.mean(0)
    sources = {}
    for source, rows in group_rows(data.sources).items():
        y = data.labels[rows]
        right = ((mean[rows] >= 0) == (y == 1)).double().mean()
        block = {"n": len(rows), "accuracy": float(right)}
        if 0 < int(y.sum()) < len(y):
            block["auc"] = metrics.auroc(mean[rows], y)
        sources[source] = block
    return {
        "n": len(data),
        "max_probability": MAX_PROBABILITY,
        "sources": sources,
        "counts": count_sources(found),
        "scans": found,
    }


def count_sources(items: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Count listed scans by source."""
    return dict(sorted(Counter(item["source"] for item in items).items()))


def table(results: md.Results) -> str:
    """Renders the counts by source: disputed labels, then odd scans by kind."""
    [result] = md.results_of(results, "labels", [""]).values()
    rows = result["rows"]
    lines: list[tuple[str, dict[str, int]]] = []
    if "disputed" in rows:
        words = f"label disputed: below probability {MAX_PROBABILITY:g} in every repeat"
        lines.append((words, rows["disputed"]["counts"]))
    known = odd.KINDS | {kind: words for kind, (_, words) in pictures.LIMITS.items()}
    limits = {kind: f" ({limit:g})" for kind, (limit, _) in pictures.LIMITS.items()}
    lines += [(known[kind] + limits.get(kind, ""), counts)
              for kind, counts in rows["odd"]["counts"].items()]  # fmt: skip
    sources = sorted({source for _, counts in lines for source in counts})
    cells = [[words, *(str(counts.get(s, 0)) for s in sources)] for words, counts in lines]
    return f"{md.table(['scans', *sources], cells)}\n\n{md.source(result)}"
