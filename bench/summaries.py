"""Summaries of one system's readings: accuracy with intervals, recall, AUROC, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.intervals import draw_auroc, draw_share, draw_units, find_interval
from core import metrics
from train.data.dataset import ScanDataset

ROC_STEPS = 100
RANGES = {"paper": (0.0, 15.0), "fused": (-10.0, 20.0)}  # of each score; nearly all scans lie there
SCORE_BINS = 30
RELIABILITY_BINS = 10
AUROC_DRAWS = 500


class Reading(NamedTuple):
    """Outputs of a system for N scans."""

    probability: Tensor  # (N,) of 'tumour'
    flagged: Tensor | None = None  # (N,) bool, where a detector stands in front
    t_star: Tensor | None = None  # (N,)
    attention: Tensor | None = None  # (N, K), where experts are weighed by input


def join_readings(readings: Sequence[Reading]) -> Reading:
    """Join the readings of all batches, on the CPU."""
    columns = zip(*readings, strict=True)
    return Reading(*(None if c[0] is None else torch.cat(c).cpu() for c in columns))


def summarize_reading(reading: Reading, fold: ScanDataset) -> dict[str, Any]:
    """Compute all figures of one system; for each source too where there are several."""
    y, right = fold.labels, metrics.is_right(reading.probability, fold.labels)
    block = {**_block(reading.probability, y), **share_by_group(right, fold.groups)}
    block["recall"] = {
        name: share(right[rows])
        for name, rows in group_rows(fold.subtypes).items()
        if name != "no tumour"
    }
    sources = group_rows(fold.sources)
    if len(sources) > 1:
        parts = {name: (_rows(reading, rows), fold.pick(rows)) for name, rows in sources.items()}
        block["sources"] = {name: summarize_reading(*part) for name, part in parts.items()}
    if reading.flagged is not None:
        block["flagged"] = float(reading.flagged.double().mean())
        block["wrong_and_not_flagged"] = int((~right & ~reading.flagged).sum())
    if reading.t_star is not None:
        block["t_star_mean"] = float(reading.t_star.double().mean())
    if reading.attention is not None:
        weights = reading.attention
        sd = weights.std(0, correction=0)
        block["attention"] = {"mean": weights.mean(0).tolist(), "sd": sd.tolist()}
    return block


def check_numbers(name: str, outputs: Tensor) -> None:
    """Raises ValueError where outputs are no numbers, which would be counted as an answer."""
    if not torch.isfinite(outputs).all():
        raise ValueError(f"{name} returns what is no number")


def mark_correct(name: str, logits: Tensor, y: Tensor) -> Tensor:
    """Mark the scans that logits (B, C) classify correctly, bool (B,) on the CPU."""
    check_numbers(name, logits)
    return (logits.argmax(1) == y).cpu()


def to_bits(right: Tensor) -> str:
    """Convert bool (N,) to N characters, '1' for True."""
    return "".join("1" if r else "0" for r in right.tolist())


def from_bits(text: str) -> Tensor:
    """Invert `to_bits`."""
    return torch.tensor([c == "1" for c in text])


def share(right: Tensor) -> dict[str, Any]:
    """Compute k, n, k / n and Wilson's 95 % interval of a bool tensor (N,)."""
    k, n = int(right.sum()), len(right)
    return {"k": k, "n": n, "accuracy": k / n, "interval": metrics.wilson_interval(k, n)}


def share_by_group(right: Tensor, groups: Sequence[int]) -> dict[str, Any]:
    """Compute `share`, and the bootstrap interval by near-duplicate group."""
    return {**share(right), "interval_by_group": metrics.group_bootstrap_interval(right, groups)}


def share_by_label(right: Tensor, y: Tensor) -> dict[str, Any]:
    """Compute `share` of bool (N,); under 'recall' of scans with a tumour and without one."""
    kinds = {"tumour": y == 1, "no tumour": y == 0}
    recall = {kind: share(right[rows]) for kind, rows in kinds.items() if rows.any()}
    return {**share(right), "recall": recall}


def share_by_unit(times: Tensor, chosen: Tensor, among: Tensor) -> dict[str, Any]:
    """Compute k, n, k / n of `chosen` in `among`, bool (N,), and the interval of draws (D, N).

    Without any in `among` the share and its interval are None.
    """
    k, n = int((chosen & among).sum()), int(among.sum())
    interval = find_interval(draw_share(times, chosen & among, among)) if n else None
    return {"k": k, "n": n, "value": k / n if n else None, "interval": interval}


def measure_separation(clean: Tensor, attacked: Tensor, groups: Sequence[int]) -> dict[str, Any]:
    """Compute AUROC of scores of scans (N,) against paired adversarial examples (N,).

    `tpr_at_5` is the share found above the score that 5 % of these very scans exceed when clean.
    """
    score, y = torch.cat([clean, attacked]), torch.arange(2).repeat_interleave(len(clean))
    times = draw_units([*groups, *groups], AUROC_DRAWS)  # each scan with its adversarial example
    return {
        "auroc": metrics.auroc(score, y),
        "tpr_at_5": metrics.tpr_at_fpr(score, y, 0.05),
        "tpr_at_1": metrics.tpr_at_fpr(score, y, 0.01),
        "interval": find_interval(draw_auroc(times, score, y)),
    }


def _block(p: Tensor, y: Tensor) -> dict[str, Any]:
    block: dict[str, Any] = {"calibration_error": metrics.expected_calibration_error(p, y)}
    right = metrics.is_right(p, y)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        inside = y == label
        if inside.any():
            part = share(right[inside])
            block[name] = part["accuracy"]
            block[f"{name}_interval"] = part["interval"]
    if 0 < int(y.sum()) < len(y):
        block["balanced_accuracy"] = metrics.balanced_accuracy(p, y)
        block["auc"] = metrics.auroc(p, y)
    return block


def group_rows(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each name."""
    return {name: [i for i, n in enumerate(names) if n == name] for name in sorted(set(names))}


def _rows(reading: Reading, rows: list[int]) -> Reading:
    return Reading(*(None if c is None else c[rows] for c in reading))


def compute_roc(negative: Tensor, positive: Tensor) -> list[float]:
    """Compute TPR on `positive` (N,) at a FPR of at most 0, 1, ... 100 % on `negative` (M,).

    101 values in [0, 1] that never fall; the last is 1.
    """
    score = torch.cat([negative, positive])
    y = torch.cat([torch.zeros(len(negative)), torch.ones(len(positive))]).long()
    found = [metrics.tpr_at_fpr(score, y, i / ROC_STEPS) for i in range(ROC_STEPS)]
    return [*found, 1.0]


def count_scores(score: Tensor, name: str) -> dict[str, Any]:
    """Count scores (N,) in 30 equal bins of the score's fixed range.

    What lies outside counts in the first or last bin, so that the counts add up to N.
    """
    low, high = RANGES[name]
    place = ((score.double() - low) / (high - low) * SCORE_BINS).floor()
    bins = place.clamp(0, SCORE_BINS - 1).long()
    counts = torch.bincount(bins, minlength=SCORE_BINS).tolist()
    return {"low": low, "high": high, "counts": counts}


def count_reliability(probability: Tensor, y: Tensor) -> dict[str, list[Any]]:
    """Compare the probability of a tumour (N,) in ten equal bins with labels (N,) of 0 or 1.

    Returns:
        For each bin the scans `n`, the `tumours` among them, and their `mean` probability, which
        is None where the bin is empty.
    """
    bins = (probability.double() * RELIABILITY_BINS).floor().clamp(0, RELIABILITY_BINS - 1).long()
    inside = [bins == i for i in range(RELIABILITY_BINS)]
    return {
        "n": [int(rows.sum()) for rows in inside],
        "tumours": [int(y[rows].sum()) for rows in inside],
        "mean": [float(probability[r].double().mean()) if r.any() else None for r in inside],
    }
