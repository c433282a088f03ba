"""Certified accuracy: share of scans whose reading provably no small perturbation changes.

The certified classifier alone is measured, no part of the system: see `core.interval`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.intervals import draw_share, draw_units, find_interval
from bench.parallel import progress
from bench.provenance import describe_weights
from bench.result_file import ResultFile
from bench.summaries import from_bits, group_rows, share, share_by_group, to_bits
from core import interval
from core.attacks import APGD
from core.attacks.threat_models import PAPER_EPS
from core.interval import IntervalNet
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset

HELP = "certified accuracy of the certified classifier: interval bounds"
RADII = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.03)
CONSTANT = 0.5  # balanced accuracy of one answer for every scan, whatever the radius
STEPS = 50  # of the attacks that no certified answer may yield to
SMALLER = (0.33, 0.67)  # sizes of further attacks, in eps: on what is proven of less than eps


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--fold", "--batch-size")
    parser.add_argument("--eps", type=float, default=PAPER_EPS, help="size of the perturbation")


def run(args: argparse.Namespace) -> None:
    """Measures the certificates, and which answers of the mixture they agree with."""
    system = options.open_system(args)
    hashes = describe_weights(args.weights)["sha256"]
    system.identity["weights"] |= {interval.FILE: hashes.get(interval.FILE)}
    store = options.open_results(args, system)
    model = interval.load(args.weights, system.pipeline.device)
    measure(store, model, system.pipeline, options.open_fold(args), args.eps, args.batch_size)
    store.close()


def measure(
    store: ResultFile,
    model: IntervalNet,
    pipeline: MedFedPure,
    fold: ScanDataset,
    eps: float,
    batch_size: int = 32,
) -> None:
    """Fills `store`: a certificate of each scan, attacks on it, then the figures that follow."""
    said = store.row("certificates", lambda: certify_scans(model, pipeline, fold, batch_size))
    store.row("attacked", lambda: attack_scans(model, fold, said, eps, batch_size), eps=eps)
    row = store.row("accuracy", lambda: compute_figures(said, fold, eps), eps=eps)
    if row["certified"]["balanced"] <= CONSTANT:
        store.warn(f"certified balanced accuracy at {eps:g} is no better than a constant answer's")


@torch.no_grad()
def certify_scans(
    model: IntervalNet, pipeline: MedFedPure, fold: ScanDataset, batch_size: int
) -> dict[str, Any]:
    """Returns for each scan the certified label and its largest proven eps, and the mixture's."""
    labels, sizes, mixture = [], [], []
    for x, _, _ in progress(fold.batches(batch_size, pipeline.device), "certify"):
        label, eps = model.certify_averages(model.pool(x.double()))
        labels.append(label.cpu())
        sizes.append(eps.cpu())
        mixture.append(pipeline.classifier_logits(x).argmax(1).cpu())
    return {
        "said": to_bits(torch.cat(labels) == 1),
        "eps": torch.cat(sizes).tolist(),
        "mixture": to_bits(torch.cat(mixture) == 1),
        "side": model.config.side,
    }


def attack_scans(
    model: IntervalNet, fold: ScanDataset, said: dict[str, Any], eps: float, batch_size: int
) -> dict[str, Any]:
    """Returns how many answers APGD turns within eps, and within less.

    Raises:
        ValueError: an answer was turned that is certified at the attack's size.
    """
    labels, sizes = from_bits(said["said"]).long(), torch.tensor(said["eps"])

    def read(x: Tensor) -> Tensor:
        return model(model.pool(x.double()))

    turned = {}
    for size in (*(s * eps for s in SMALLER), eps):
        found, place = [], 0
        for x, _, seeds in progress(fold.batches(batch_size, _device_of(model)), f"{size:.4f}"):
            y = labels[place : place + len(x)].to(x.device)
            hit = APGD(size, STEPS, loss="margin")(read, x, y, seeds)
            with torch.no_grad():
                found.append((read(hit).argmax(1) != y).cpu())
            place += len(x)
        turned[size] = torch.cat(found)
        if (turned[size] & (sizes >= size)).any():
            raise ValueError("an attack turned a certified answer: the certificates are wrong")
    return {
        "steps": STEPS,
        "any": share(turned[eps]),
        "smaller": {f"{size:.4g}": share(found) for size, found in turned.items() if size < eps},
    }


def compute_figures(said: dict[str, Any], fold: ScanDataset, eps: float) -> dict[str, Any]:
    """Returns certified accuracy at `eps` and along a curve, and what locks the mixture's answers.

    An answer of the mixture is locked where the certified classifier gives it too, proven at `eps`.
    """
    if len(set(fold.labels.tolist())) < 2:
        raise ValueError("balanced accuracy needs scans of both classes: raise --limit")
    size = torch.tensor(said["eps"], dtype=torch.float64)
    answers, mixture = (from_bits(said[name]) for name in ("said", "mixture"))
    wanted = fold.labels == 1
    right, locked = answers == wanted, (answers == mixture) & (size >= eps)
    return {
        "eps": eps,
        "constant": CONSTANT,
        "certified": summarize_block(right & (size >= eps), fold),
        "clean": summarize_block(right, fold),
        "locked": share(locked),
        "locked_right": share((mixture == wanted)[locked]) if locked.any() else None,
        "mixture": share(mixture == wanted),
        "curve": {f"{r:g}": compute_balanced(right & (size >= r), fold)["balanced"] for r in RADII},
    }


def summarize_block(right: Tensor, fold: ScanDataset) -> dict[str, Any]:
    """Returns balanced accuracy with intervals; per class, kind of tumour and source."""
    found = {**compute_balanced(right, fold), "all": share(right)}
    found["recall"] = {k: share(right[rows]) for k, rows in group_rows(fold.subtypes).items()}
    sources = group_rows(fold.sources)
    if len(sources) > 1:
        found["sources"] = {
            name: compute_balanced(right[rows], fold.pick(rows)) for name, rows in sources.items()
        }
    return found


def compute_balanced(right: Tensor, fold: ScanDataset) -> dict[str, Any]:
    """Returns the mean of both classes' shares, with 95 % intervals by scan and by group.

    Of a source without one of the classes it is the other's. By scan the classes' own intervals
    (Wilson's) are joined as those of independent shares (Newcombe 1998): each side's distances are
    added as squares. By group both classes are drawn together, as patients may have both.
    """
    parts = {}
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        rows = (fold.labels == label).nonzero().flatten().tolist()
        if not rows:
            continue
        groups = [fold.groups[i] for i in rows]
        parts[name] = share_by_group(right[rows], groups)
    if not parts:
        raise ValueError("there are no scans")
    mean = sum(part["accuracy"] for part in parts.values()) / len(parts)
    times = draw_units(fold.groups)
    drawn = [draw_share(times, right, fold.labels == y) for y in (0, 1) if (fold.labels == y).any()]
    return {
        "balanced": mean,
        "interval": _join_intervals(
            mean, [(part["accuracy"], part["interval"]) for part in parts.values()]
        ),
        "interval_by_group": find_interval(torch.stack(drawn).mean(0)),
        **parts,
    }


def _join_intervals(
    mean: float, parts: Sequence[tuple[float, Sequence[float]]]
) -> tuple[float, float]:
    low, high = (math.hypot(*(p - i[end] for p, i in parts)) / len(parts) for end in (0, 1))
    return mean - low, mean + high


def table(results: md.Results) -> str:
    """Renders certified accuracy, per class and source, and along a curve."""
    parts = []
    for protocol, result in md.results_of(results, "certify", md.PROTOCOLS).items():
        said, row, attacked = (
            result["rows"][name] for name in ("certificates", "accuracy", "attacked")
        )
        certified, clean = row["certified"], row["clean"]
        at = f"certified at L∞ ε = {row['eps']:g}, %"
        lines = [["all scans, balanced", _format_balanced(certified), _format_balanced(clean)]]
        for name, label in (("sensitivity", "tumours"), ("specificity", "no tumour")):
            lines.append([label, md.accuracy(certified[name]), md.accuracy(clean[name])])
        lines += [
            [
                f"source {name}, {_name_measure(part)}",
                _format_balanced(part),
                _format_balanced(clean["sources"][name]),
            ]
            for name, part in certified.get("sources", {}).items()
        ]
        lines.append(["one answer for every scan, balanced", *[md.percent(row["constant"])] * 2])
        head = ["", f"{at} [95 % by scan; by group]", "correct with any radius, %"]
        curve = md.table(
            ["L∞ ε", *row["curve"]], [["balanced, %", *map(md.percent, row["curve"].values())]]
        )
        locked, right = row["locked"], row["locked_right"]
        facts = (
            f"The scan is averaged to {said['side']} x {said['side']}; bounds in double precision, "
            f"no chance in them. Of {attacked['any']['n']} answers APGD ({attacked['steps']} "
            f"steps) turns {attacked['any']['k']}, none of them certified. The page shows a lock "
            "where mixture and certified classifier agree and a size is proven, with that size: "
            f"with {row['eps']:g} or more on {locked['k']} of {locked['n']} scans ('cannot judge' "
            "left out)"
        )
        if right:
            facts += (
                f", of which the mixture is right on {md.percent(right['accuracy'])} % "
                f"(of all {md.percent(row['mixture']['accuracy'])} %)"
            )
        parts.append(
            f"**{protocol}**\n\n{md.table(head, lines)}\n\n{curve}\n\n{facts}. {md.source(result)}"
        )
    return "\n\n".join(parts)


def _name_measure(part: md.Result) -> str:
    """Returns the only measure of a source of one class, else 'balanced'."""
    both = [name for name in ("sensitivity", "specificity") if name in part]
    return both[0] if len(both) == 1 else "balanced"


def _format_balanced(part: md.Result) -> str:
    intervals = "; ".join(md.span(part[name]) for name in ("interval", "interval_by_group"))
    return f"{md.percent(part['balanced'])} [{intervals}]"


def _device_of(model: IntervalNet) -> torch.device:
    return next(model.parameters()).device
