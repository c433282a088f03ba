"""The attention's test: weights that vary, that follow the kind of scan, and that matter.

The route of a scan is the expert with the largest weight. Information is between route and kind of
scan, over the scans whose kind is known. The attention passes if all limits of LIMITS are met.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.intervals import draw_balanced_accuracy, draw_units, find_interval
from bench.parallel import progress
from core.attacks import paper_attack
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset
from train.data.split import PROTOCOLS

HELP = "the attention: whether its weights vary, follow plane or sequence, and matter"
# figure -> (smallest value that passes, its words in the table)
LIMITS = {
    "sd": (0.15, "standard deviation of the weights, mean of the experts"),
    "information": (0.5, "information of the route on plane or sequence, bit"),
    "over_source": (0.05, "the same, less that on the source, over the same scans, bit"),
    "lost_elsewhere": (0.03, "balanced accuracy lost with the weights moved on by one expert"),
    "lost_equal": (0.01, "balanced accuracy lost with equal weights"),
    "kept": (0.95, "share of scans that keep their route under PGD-7"),
}


class Votes(NamedTuple):
    """Experts' answers to N scans."""

    weights: Tensor  # (N, K)
    log_probs: Tensor  # (N, K, 2)
    moved: Tensor  # (N,) int64, the route under attack
    cut: float = 0.0  # log-odds of the mixture from which the system says 'tumour'


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser, "--batch-size", "--fold")


def run(args: argparse.Namespace) -> None:
    """Measures the attention of the mixture."""
    system = options.open_system(args)
    store = options.open_results(args, system)
    fold = options.open_fold(args)
    store.row(
        "attention",
        lambda: judge_attention(read_votes(system.pipeline, fold, args.batch_size), fold),
    )
    store.close()


def read_votes(pipeline: MedFedPure, fold: ScanDataset, batch_size: int) -> Votes:
    """Read every scan, and its route under the paper's PGD-7 on the mixture in 8 bits."""
    model, attack = pipeline.classifier.model, paper_attack(eight_bit=True)
    parts = []
    for x, y, seeds in progress(fold.batches(batch_size, pipeline.device), "attention"):
        hit = attack(pipeline.classifier_logits, x, y, seeds)
        with torch.no_grad():
            output, after = model.outputs(x), model.outputs(hit)
        found = (output.attention, output.expert_logits, after.attention.argmax(1))
        parts.append([t.cpu().double() for t in found])
    weights, logits, moved = (torch.cat(part) for part in zip(*parts, strict=True))
    classifier = pipeline.classifier
    cut = -classifier.temperature * (classifier.bias[1] - classifier.bias[0])
    return Votes(weights, logits.log_softmax(2), moved.long(), float(cut))


def judge_attention(votes: Votes, fold: ScanDataset) -> dict[str, Any]:
    """Compute the figures of LIMITS with intervals by patient where they are of accuracy."""
    weights, y = votes.weights, fold.labels
    route = weights.argmax(1)
    records = [entry.record for entry in fold.entries]
    facts = {"sequence": [r.sequence for r in records], "plane": [r.plane for r in records]}
    information = {}
    for name, values in facts.items():
        same = [s if value else "" for s, value in zip(fold.sources, values, strict=True)]
        information[name] = {
            "bits": measure_information(route, values),
            "source": measure_information(route, same),
        }
    best = max(information.values(), key=lambda found: found["bits"] - found["source"])
    own = is_right(votes, weights, y)
    elsewhere = is_right(votes, roll_weights(weights), y)
    equal = is_right(votes, torch.full_like(weights, 1 / weights.shape[1]), y)
    times = draw_units(fold.groups)
    figures: dict[str, Any] = {
        "n": len(y),
        "mean": weights.mean(0).tolist(),
        "sd": float(weights.std(0, correction=0).mean()),
        "information": best["bits"],
        "information_of": information,
        "over_source": best["bits"] - best["source"],
        "kept": float((votes.moved == route).double().mean()),
    }
    for name, right in (("lost_elsewhere", elsewhere), ("lost_equal", equal)):
        lost = draw_balanced_accuracy(times, own, y) - draw_balanced_accuracy(times, right, y)
        figures[name] = compute_balanced(own, y) - compute_balanced(right, y)
        figures[f"{name}_interval"] = list(find_interval(lost))
    figures["passes"] = {name: figures[name] >= limit for name, (limit, _) in LIMITS.items()}
    return figures


def is_right(votes: Votes, weights: Tensor, y: Tensor) -> Tensor:
    """Mark the scans that the experts classify correctly with these weights, bool (N,)."""
    log_mix = torch.logsumexp(weights.clamp_min(1e-12).log()[:, :, None] + votes.log_probs, 1)
    return (log_mix[:, 1] - log_mix[:, 0] >= votes.cut) == (y == 1)


def roll_weights(weights: Tensor) -> Tensor:
    """Give every scan its weights moved on by one expert: the same values, another route."""
    return weights.roll(1, 1)


def compute_balanced(right: Tensor, y: Tensor) -> float:
    """Compute the mean of recall and specificity."""
    return float(torch.stack([right[y == label].double().mean() for label in (0, 1)]).mean())


def measure_information(route: Tensor, values: Sequence[str]) -> float:
    """Measure the mutual information of route and values in bit, over the known values.

    A finite sample of independent draws has (r - 1)(c - 1) / (2 n ln 2) on average; that is taken
    off (Miller 1955). 0 where nothing is known.
    """
    rows = [i for i, value in enumerate(values) if value]
    if not rows:
        return 0.0
    names = {value: k for k, value in enumerate(sorted({values[i] for i in rows}))}
    kind = torch.tensor([names[values[i]] for i in rows])
    table = F.one_hot(route[rows]).double().T @ F.one_hot(kind, len(names)).double()
    joint = table[table.sum(1) > 0] / table.sum()
    expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    bits = torch.where(joint > 0, joint * (joint / expected).log2(), 0.0).sum()
    chance = (joint.shape[0] - 1) * (joint.shape[1] - 1) / (2 * len(rows))
    return max(0.0, float(bits) - chance / math.log(2))


def table(results: md.Results) -> str:
    """Renders the figures beside their limits."""
    parts = []
    for result in md.results_of(results, "gate", PROTOCOLS).values():
        row = result["rows"]["attention"]
        lines = [
            [words, _render(row, name), f"{limit:g}", "yes" if row["passes"][name] else "no"]
            for name, (limit, words) in LIMITS.items()
        ]
        head = ["figure", "measured [95 % by patient]", "at least", "passes"]
        parts.append(f"{md.table(head, lines)}\n\n{md.source(result)}")
    return "\n\n".join(parts)


def _render(row: dict[str, Any], name: str) -> str:
    value = f"{row[name]:.3f}"
    if (interval := row.get(f"{name}_interval")) is None:
        return value
    return f"{value} [{interval[0]:.3f} to {interval[1]:.3f}]"
