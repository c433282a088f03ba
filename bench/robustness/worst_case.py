"""Worst case: per scan, over all attacks of the suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.robustness.attacks import NOISE, attack_order
from bench.summaries import group_rows, measure_separation, share, share_by_group
from core import metrics
from train.data.dataset import ScanDataset

PAIRS = (  # the second leaves no more right than the first
    (NOISE, "A3"), (NOISE, "A10"), ("A2", "A3"), ("A10", "A3"), ("A10", "A2"), ("A5", "A3"),
    ("A6", "A3"), ("A1", "A3"), ("clean", "A3"),
)  # fmt: skip
FORMS = ("right", "right_8bit")  # as attacked, and rounded to 8 bits
Rows = Mapping[str, Mapping[str, Any]]


def select_rows(rows: Rows, system: str) -> dict[str, Mapping[str, Any]]:
    """Return the attacks' rows of one system, by key of the attack."""
    return {r["row"]: r for r in rows.values() if r.get("system") == system}


def robust_mask(row: Mapping[str, Any], form: str = "right") -> Tensor:
    """Mark the scans that are robust to a row's attack, bool (N,)."""
    return torch.tensor([bit != "0" for bit in row[form]])


def evaluated_mask(row: Mapping[str, Any]) -> Tensor:
    """Mark the scans that a row's attack was evaluated on, bool (N,)."""
    return torch.tensor([bit != "-" for bit in row["right"]])


def undetected_mask(row: Mapping[str, Any]) -> Tensor:
    """Mark the scans misread in a row without an alarm, bool (N,); none without a detector."""
    bits = row.get("unnoticed", "0" * len(row["right"]))
    return torch.tensor([bit == "1" for bit in bits])


def robust_to_all(rows: Iterable[Mapping[str, Any]], forms: Sequence[str] = FORMS) -> Tensor:
    """Mark the scans that are robust to every row in all `forms`, bool (N,)."""
    return torch.stack([robust_mask(row, form) for row in rows for form in forms]).all(0)


def summarize_systems(
    rows: Rows,
    fold: ScanDataset,
    taus: Mapping[str, float] | None = None,
    only: str | None = None,
    best: str = "defence",
) -> dict[str, Any]:
    """Return each system's worst case, or one system's, and exact tests against `best`.

    `taus` are the systems' detection thresholds. Rows of another budget, on other scans, are left
    out.
    """
    rows = {k: r for k, r in rows.items() if len(r.get("right", "")) == len(fold)}
    systems = list(dict.fromkeys(r["system"] for r in rows.values()))
    found: dict[str, Any] = {}
    for system in [s for s in systems if only in (None, s)]:
        own = select_rows(rows, system)
        found[system] = {"meaning": own["clean"]["meaning"], "rows": list(own)}
        robust = robust_to_all(own.values())  # a scan in 8 bits lies in the ball as well
        in_8bit = robust_to_all(own.values(), ["right_8bit"])
        found[system]["worst_8bit"] = summarize_accuracy(in_8bit, fold)
        found[system]["worst"] = summarize_accuracy(robust, fold)
        found[system]["clean"] = summarize_accuracy(robust_mask(own["clean"]), fold)
        found[system]["falls"] = count_broken(own)
        if best in systems and system != best:
            theirs = robust_to_all(select_rows(rows, best).values())
            b, c, p = metrics.mcnemar(theirs, robust)
            found[system]["mcnemar"] = {f"only_{best}": b, "only_it": c, "p": p}
        if "scores" in own["clean"]:
            found[system]["detection"] = measure_detection(
                own, fold.groups, (taus or {}).get(system)
            )
            found[system]["unnoticed"] = count_undetected(own)
    return found


def summarize_accuracy(right: Tensor, fold: ScanDataset) -> dict[str, Any]:
    """Return accuracy with intervals, by kind of tumour and by source."""
    found = share_by_group(right, fold.groups)
    kinds, sources = group_rows(fold.subtypes), group_rows(fold.sources)
    found["recall"] = {kind: share(right[rows]) for kind, rows in kinds.items()}
    if len(sources) > 1:
        found["sources"] = {
            n: summarize_accuracy(right[rows], fold.pick(rows)) for n, rows in sources.items()
        }
    return found


def count_broken(own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the scans evaluated and broken by each attack, of those robust to all before it.

    With a detector also the undetected: misread and not flagged, of scans correct when clean.
    """
    right = left = robust_to_all([own["clean"]])
    found = {}
    for name in [n for n in attack_order() if n in own]:
        row = own[name]
        broken = left & ~robust_to_all([row])
        found[name] = {"tried": int((left & evaluated_mask(row)).sum()), "fell": int(broken.sum())}
        if "unnoticed" in row:
            found[name]["unnoticed"] = int((right & undetected_mask(row)).sum())
        left = left & ~broken
    return found


def count_undetected(own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the scans misread clean, and the others misread under attack.

    'unnoticed': those of them that are misread without an alarm in some row.
    """
    clean = own["clean"]
    past = torch.stack([undetected_mask(row) for row in own.values()]).any(0)
    groups = {
        "as_they_are": ~robust_to_all([clean]),
        "attacked": robust_to_all([clean]) & ~robust_to_all(own.values()),
    }
    return {
        name: {"misread": int(some.sum()), "unnoticed": int((some & past).sum())}
        for name, some in groups.items()
    }


def measure_detection(
    own: Mapping[str, Mapping[str, Any]], groups: Sequence[int], tau: float | None = None
) -> dict[str, dict[str, Any]]:
    """Return the detector's AUROC for every try of every attack in 8 bits, against clean scans.

    'worst' takes each scan's lowest score over all rows. 'flagged': above tau, which was set on
    validation scans; of clean scans that alone. In the suite's order.
    """
    clean = torch.tensor(own["clean"]["scores"][0])
    lowest = torch.full_like(clean, torch.inf)
    found: dict[str, dict[str, Any]] = {}

    def alarms(scores: Tensor) -> dict[str, Any]:
        return {"n": len(scores)} | ({} if tau is None else {"flagged": share(scores > tau)})

    def compare(some: Tensor, attacked: Tensor) -> dict[str, Any]:
        chosen = [groups[i] for i in some.nonzero()[:, 0].tolist()]
        return {**measure_separation(clean[some], attacked, chosen), **alarms(attacked)}

    found["clean"] = alarms(clean)
    for name in attack_order():
        row = own.get(name, {})
        if not row.get("scores"):
            continue
        tried, scores = evaluated_mask(row), torch.tensor(row["scores"])
        for i, attacked in enumerate(scores):
            label = f"{name} ({i + 1})" if len(scores) > 1 else name
            found[label] = compare(tried, attacked)
        if name != NOISE:
            lowest[tried] = torch.minimum(lowest[tried], scores.amin(0))
    attacked = lowest.isfinite()
    if attacked.any():
        found["worst"] = compare(attacked, lowest[attacked])
    return found


def compare_rows(rows: Rows, system: str, few: Tensor, checked: Tensor, slack: float) -> list[str]:
    """Return a warning for each stronger attack that leaves more scans correct than a weaker one.

    Strongest first: exact gradients, approximated ones, transfer, Square, random noise; one scan
    of tolerance. Compared on `few` (N,) bool where both ran on all of them, else on `checked`.
    """
    own = select_rows(rows, system)
    warnings = []
    for weak, strong in PAIRS:
        if weak not in own or strong not in own:
            continue
        tried = evaluated_mask(own[weak]) & evaluated_mask(own[strong])
        both = tried & (few if bool(tried[few].all()) else checked)
        n = max(int(both.sum()), 1)
        left = [int((both & robust_mask(own[name])).sum()) / n for name in (weak, strong)]
        if left[1] > left[0] + max(slack, 1 / n + 1e-9):  # one scan may be chance
            warnings.append(
                f"{system}: {strong} leaves {left[1]:.3f} of {int(both.sum())} scans right, more "
                f"than {weak} ({left[0]:.3f}): gradients may be masked"
            )
    return warnings
