"""Worst case: per scan, over all attacks of the suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.robustness.attacks import NOISE, attack_order
from bench.summaries import members, separation, share, share_by_group
from core import metrics
from train.data.dataset import ScanDataset

PAIRS = (  # the second leaves no more right than the first
    (NOISE, "A3"),
    (NOISE, "A10"),
    ("A2", "A3"),
    ("A10", "A3"),
    ("A10", "A2"),
    ("A5", "A3"),
    ("A6", "A3"),
    ("A1", "A3"),
    ("clean", "A3"),
)
Rows = Mapping[str, Mapping[str, Any]]


def rows_of(rows: Rows, system: str) -> dict[str, Mapping[str, Any]]:
    """The ladder's rows of one system, by the name of the attack."""
    return {r["row"]: r for r in rows.values() if r.get("system") == system}


def kept(row: Mapping[str, Any], form: str = "right") -> Tensor:
    """Mark the scans that are robust to a row's attack, bool (N,)."""
    return torch.tensor([bit != "0" for bit in row[form]])


def tried_in(row: Mapping[str, Any]) -> Tensor:
    """Mark the scans that a row's attack was evaluated on, bool (N,)."""
    return torch.tensor([bit != "-" for bit in row["right"]])


def unnoticed(row: Mapping[str, Any]) -> Tensor:
    """Mark the scans misread in a row without an alarm, bool (N,); none without a detector."""
    bits = row.get("unnoticed", "0" * len(row["right"]))
    return torch.tensor([bit == "1" for bit in bits])


def worst_case(rows: Rows, system: str, form: str = "right") -> Tensor:
    """Mark the scans that are correct after every row, bool (N,)."""
    return torch.stack([kept(row, form) for row in rows_of(rows, system).values()]).all(0)


def standings(
    rows: Rows,
    fold: ScanDataset,
    taus: Mapping[str, float] | None = None,
    only: str | None = None,
    best: str = "defence",
) -> dict[str, Any]:
    """Figures of every system's worst case, or of one's, and exact tests against the best one's.

    `taus`: above which score each system raises an alarm. Rows of other scans than the fold's, of
    another budget, have no part in it.
    """
    rows = {k: r for k, r in rows.items() if len(r.get("right", "")) == len(fold)}
    systems = list(dict.fromkeys(r["system"] for r in rows.values()))
    found: dict[str, Any] = {}
    for system in [s for s in systems if only in (None, s)]:
        own = rows_of(rows, system)
        found[system] = {"meaning": own["clean"]["meaning"], "rows": list(own)}
        in_8bit = worst_case(rows, system, "right_8bit")
        found[system]["worst_8bit"] = block(in_8bit, fold)
        # a scan in 8 bits lies in the ball as well
        found[system]["worst"] = block(withstood(own), fold)
        found[system]["clean"] = block(worst_case({"": own["clean"]}, system), fold)
        found[system]["falls"] = falls(own)
        if best in systems and system != best:
            b, c, p = metrics.mcnemar(withstood(rows_of(rows, best)), withstood(own))
            found[system]["mcnemar"] = {f"only_{best}": b, "only_it": c, "p": p}
        if "scores" in own["clean"]:
            found[system]["detection"] = detection(own, fold.groups, (taus or {}).get(system))
            found[system]["unnoticed"] = misread(own)
    return found


def block(right: Tensor, fold: ScanDataset) -> dict[str, Any]:
    """Accuracy with intervals; per class, kind of tumour and source."""
    found = share_by_group(right, fold.groups)
    kinds, sources = members(fold.subtypes), members(fold.sources)
    found["recall"] = {kind: share(right[rows]) for kind, rows in kinds.items()}
    if len(sources) > 1:
        found["sources"] = {n: block(right[rows], fold.pick(rows)) for n, rows in sources.items()}
    return found


def falls(own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Of the scans that stand after the rows before it, tried and fallen by each row, in order.

    Where there is a detector also how many of those that are read right when clean it got misread
    without an alarm, whether they stood or not.
    """
    right = left = stands(own["clean"])
    found = {}
    for name in [n for n in attack_order() if n in own]:
        row = own[name]
        fell = left & ~stands(row)
        found[name] = {"tried": int((left & tried_in(row)).sum()), "fell": int(fell.sum())}
        if "unnoticed" in row:
            found[name]["unnoticed"] = int((right & unnoticed(row)).sum())
        left = left & ~fell
    return found


def stands(row: Mapping[str, Any]) -> Tensor:
    """Mark the scans robust to a row's attack, as attacked and in 8 bits, bool (N,)."""
    return kept(row) & kept(row, "right_8bit")


def withstood(own: Mapping[str, Mapping[str, Any]]) -> Tensor:
    """Mark the scans that are robust to every row, bool (N,)."""
    return torch.stack([stands(row) for row in own.values()]).all(0)


def misread(own: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the scans misread clean, and the others misread under attack.

    'unnoticed': those of them that are misread without an alarm in some row.
    """
    clean = own["clean"]
    past = torch.stack([unnoticed(row) for row in own.values()]).any(0)
    groups = {"as_they_are": ~stands(clean), "attacked": stands(clean) & ~withstood(own)}
    return {
        name: {"misread": int(some.sum()), "unnoticed": int((some & past).sum())}
        for name, some in groups.items()
    }


def detection(
    own: Mapping[str, Mapping[str, Any]], groups: Sequence[int], tau: float | None = None
) -> dict[str, dict[str, Any]]:
    """AUROC of the detector for every try of every row in 8 bits, against the same scans clean.

    'worst' takes each scan's lowest score over all rows. 'flagged': above tau, which was set on
    validation scans; of clean scans that alone. In the ladder's order.
    """
    clean = torch.tensor(own["clean"]["scores"][0])
    lowest = torch.full_like(clean, torch.inf)
    found: dict[str, dict[str, Any]] = {}

    def alarms(scores: Tensor) -> dict[str, Any]:
        return {"n": len(scores)} | ({} if tau is None else {"flagged": share(scores > tau)})

    def told(some: Tensor, attacked: Tensor) -> dict[str, Any]:
        chosen = [groups[i] for i in some.nonzero()[:, 0].tolist()]
        return {**separation(clean[some], attacked, chosen), **alarms(attacked)}

    found["clean"] = alarms(clean)
    for name in attack_order():
        row = own.get(name, {})
        if not row.get("scores"):
            continue
        tried, scores = tried_in(row), torch.tensor(row["scores"])
        for i, attacked in enumerate(scores):
            label = f"{name} ({i + 1})" if len(scores) > 1 else name
            found[label] = told(tried, attacked)
        if name != NOISE:
            lowest[tried] = torch.minimum(lowest[tried], scores.amin(0))
    attacked = lowest.isfinite()
    if attacked.any():
        found["worst"] = told(attacked, lowest[attacked])
    return found


def compare_rows(rows: Rows, system: str, few: Tensor, watched: Tensor, slack: float) -> list[str]:
    """Laws between rows on scans that both were tried on, whatever had fallen; broken ones.

    White-box attacks leave no more right than transferred ones, those no more than Square, that
    no more than noise, and exact gradients no more than approximated ones; one scan is forgiven.
    Of `few` (N,) bool where both were tried on all of them, else of `watched` (N,) bool.
    """
    own = rows_of(rows, system)
    warnings = []
    for weak, strong in PAIRS:
        if weak not in own or strong not in own:
            continue
        tried = tried_in(own[weak]) & tried_in(own[strong])
        both = tried & (few if bool(tried[few].all()) else watched)
        n = max(int(both.sum()), 1)
        left = [int((both & kept(own[name])).sum()) / n for name in (weak, strong)]
        if left[1] > left[0] + max(slack, 1 / n + 1e-9):  # a scan may fall to luck
            warnings.append(
                f"{system}: {strong} leaves {left[1]:.3f} of {int(both.sum())} scans right, more "
                f"than {weak} ({left[0]:.3f}): gradients may be masked"
            )
    return warnings
