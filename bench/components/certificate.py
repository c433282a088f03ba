"""Certified accuracy: share of scans whose reading provably no small perturbation changes.

The smoothed classifier alone is measured, no part of the defence: see `core.smoothing`.
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
from bench.parallel import progress
from bench.result_file import ResultFile
from bench.summaries import group_rows, share, share_by_group
from core import smoothing
from core.smoothing import Smoothed, lower_bound
from train.data.dataset import ScanDataset

HELP = "certified accuracy of the smoothed classifier: randomized smoothing at 28 x 28"
EPS, NOISES, CHOOSE, ALPHA = 0.015, 1000, 100, 0.001
RADII = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.03)
CONSTANT = 0.5  # balanced accuracy of one answer for every scan, whatever the radius
KEEP_EVERY = 25  # scans


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--fold")
    add = parser.add_argument
    add("--eps", type=float, default=EPS, help="size of the perturbation, L-inf")
    add("--noises", type=int, default=NOISES, help="noised copies of a scan that bound its radius")
    add("--choose", type=int, default=CHOOSE, help="further copies that choose its class")
    add("--alpha", type=float, default=ALPHA, help="probability that a certificate is wrong")


def run(args: argparse.Namespace) -> None:
    """Measures the certificate, which stands beside the system: its file alone decides."""
    system = options.open_system(args)
    hashes = system.identity["weights"]
    system.identity["weights"] = {smoothing.FILE: hashes.get(smoothing.FILE)}
    store = options.open_results(args, system)
    model = smoothing.load(args.weights, system.pipeline.device)
    measure(
        store, model, options.open_fold(args),
        eps=args.eps, n0=args.choose, n=args.noises, alpha=args.alpha,
    )  # fmt: skip
    store.close()


def measure(
    store: ResultFile,
    model: Smoothed,
    fold: ScanDataset,
    *,
    eps: float,
    n0: int,
    n: int,
    alpha: float,
) -> None:
    """Fills `store`: a certificate of each scan, then the figures that follow."""
    said = store.row("certificates", lambda: certify_scans(store, model, fold, n0, n, alpha))
    how = model.reach, model.config.sigma
    row = store.row("accuracy", lambda: compute_figures(said, fold, eps, n, alpha, *how), eps=eps)
    if row["certified"]["balanced"] <= CONSTANT:
        store.warn(f"certified balanced accuracy at {eps:g} is no better than a constant answer's")


def certify_scans(
    store: ResultFile, model: Smoothed, fold: ScanDataset, n0: int, n: int, alpha: float
) -> dict[str, Any]:
    """Returns for each scan the label ('-': abstained) and how many of n noised copies agreed."""
    device, name = next(model.parameters()).device, "certificates"
    begun = store.begun(name, {"of": list(fold.seeds), "done": 0, "said": "", "agreed": []})
    said, agreed = begun["said"], list(begun["agreed"])
    remaining = fold.pick(range(len(agreed), len(fold)))
    for x, _, seeds in progress(remaining.batches(1, device), "certify"):
        found = model.certify(x[0], n0=n0, n=n, alpha=alpha, seed=seeds[0])
        said += "-" if found.label is None else str(found.label)
        agreed.append(found.agreed)
        if len(agreed) % KEEP_EVERY == 0:
            store.keep(name, {**begun, "done": len(agreed), "said": said, "agreed": agreed})
    c, pixels = model.config, int(model.inside.sum())
    return {
        "said": said, "agreed": agreed, "sigma": c.sigma, "side": c.side, "pixels": pixels,
        "n": n, "n0": n0, "alpha": alpha,
    }  # fmt: skip


def compute_figures(
    said: dict[str, Any],
    fold: ScanDataset,
    eps: float,
    n: int,
    alpha: float,
    reach: float,
    sigma: float,
) -> dict[str, Any]:
    """Returns certified accuracy at `eps` and along a curve; abstaining counts as wrong."""
    normal = torch.distributions.Normal(0.0, 1.0)
    least = torch.tensor([lower_bound(k, n, alpha) for k in said["agreed"]], dtype=torch.float64)
    radius = sigma * normal.icdf(least.clamp_min(0.5)) / reach  # L-inf, of the scan
    right = torch.tensor([s == str(int(y)) for s, y in zip(said["said"], fold.labels, strict=True)])
    return {
        "eps": eps,
        "constant": CONSTANT,
        "certified": summarize_block(right & (radius >= eps), fold),
        "clean": summarize_block(right, fold),
        "abstained": share(torch.tensor([s == "-" for s in said["said"]])),
        "largest_eps": float(sigma * normal.icdf(torch.tensor(alpha ** (1 / n))) / reach),
        "curve": {
            f"{r:g}": compute_balanced(right & (radius >= r), fold)["balanced"] for r in RADII
        },
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

    The classes' own intervals, Wilson's and the bootstrap's, are joined as those of independent
    shares (Newcombe 1998): each side's distances are added as squares.
    """
    parts = {}
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        rows = (fold.labels == label).nonzero().flatten().tolist()
        if not rows:
            raise ValueError("balanced accuracy needs scans of both classes: raise --limit")
        groups = [fold.groups[i] for i in rows]
        parts[name] = share_by_group(right[rows], groups)
    mean = sum(part["accuracy"] for part in parts.values()) / 2
    joined = {
        name: _join_intervals(mean, [(part["accuracy"], part[name]) for part in parts.values()])
        for name in ("interval", "interval_by_group")
    }
    return {"balanced": mean, **joined, **parts}


def _join_intervals(
    mean: float, parts: Sequence[tuple[float, Sequence[float]]]
) -> tuple[float, float]:
    low, high = (math.hypot(*(p - i[end] for p, i in parts)) / len(parts) for end in (0, 1))
    return mean - low, mean + high


def table(results: md.Results) -> str:
    """Renders certified accuracy, per class and source, and along a curve."""
    parts = []
    for protocol, result in md.results_of(results, "certify", md.PROTOCOLS).items():
        said, row = result["rows"]["certificates"], result["rows"]["accuracy"]
        certified, clean = row["certified"], row["clean"]
        at = f"certified at L∞ ε = {row['eps']:g}, %"
        lines = [["all scans, balanced", _format_balanced(certified), _format_balanced(clean)]]
        for name, label in (("sensitivity", "tumours"), ("specificity", "no tumour")):
            lines.append([label, md.accuracy(certified[name]), md.accuracy(clean[name])])
        lines += [
            [
                f"source {name}, balanced",
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
        missed = row["abstained"]
        seen = f"{said['pixels']} pixels of {said['side']} x {said['side']}"
        facts = (
            f"Sigma {said['sigma']:g} on {seen}; {said['n0']} noised copies choose the class, "
            f"{said['n']} others bound (Clopper-Pearson, alpha {said['alpha']:g}), so nothing "
            f"above {row['largest_eps']:.4f} can be certified. Of {missed['k']} of {missed['n']} "
            "scans the classifier abstains, which counts as wrong."
        )
        parts.append(
            f"**{protocol}**\n\n{md.table(head, lines)}\n\n{curve}\n\n{facts} {md.source(result)}"
        )
    return "\n\n".join(parts)


def _format_balanced(part: md.Result) -> str:
    intervals = "; ".join(md.span(part[name]) for name in ("interval", "interval_by_group"))
    return f"{md.percent(part['balanced'])} [{intervals}]"
