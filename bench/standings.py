"""Where each target stands after all rows of the ladder: the worst case of every scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.figures import members, separation, share
from bench.fold import Fold
from bench.rungs import NOISE, ORDER
from core import metrics

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
    """Which scans did not fall in a row, bool (N,)."""
    return torch.tensor([bit != "0" for bit in row[form]])


def unnoticed(row: Mapping[str, Any]) -> Tensor:
    """Which scans were misread in a row without an alarm, bool (N,); of no detector none."""
    bits = row.get("unnoticed", "0" * len(row["right"]))
    return torch.tensor([bit == "1" for bit in bits])


def worst_case(rows: Rows, system: str, form: str = "right") -> Tensor:
    """Which scans are read right after every row, bool (N,)."""
    return torch.stack([kept(row, form) for row in rows_of(rows, system).values()]).all(0)


def standings(
    rows: Rows, fold: Fold, only: str | None = None, best: str = "defence"
) -> dict[str, Any]:
    """Figures of every system's worst case, or of one's, and exact tests against the best one's.

    Rows of other scans than the fold's, of another budget, have no part in it.
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
        found[system]["worst"] = block(worst_case(rows, system) & in_8bit, fold)
        found[system]["clean"] = block(worst_case({"": own["clean"]}, system), fold)
        if best in systems and system != best:
            pair = (worst_case(rows, s) & worst_case(rows, s, "right_8bit") for s in (best, system))
            b, c, p = metrics.mcnemar(*pair)
            found[system]["mcnemar"] = {f"only_{best}": b, "only_it": c, "p": p}
        if "scores" in own["clean"]:
            found[system]["detection"] = detection(own, fold.groups)
            past = torch.stack([unnoticed(row) for row in own.values()]).any(0)
            found[system]["unnoticed"] = block(~past, fold)
    return found


def block(right: Tensor, fold: Fold) -> dict[str, Any]:
    """Accuracy with intervals; per class, kind of tumour and source."""
    found = share(right)
    found["interval_by_group"] = metrics.group_bootstrap_interval(right, fold.groups)
    kinds, sources = members(fold.subtypes), members(fold.sources)
    found["recall"] = {kind: share(right[rows]) for kind, rows in kinds.items()}
    if len(sources) > 1:
        found["sources"] = {n: block(right[rows], fold.pick(rows)) for n, rows in sources.items()}
    return found


def detection(
    own: Mapping[str, Mapping[str, Any]], groups: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """AUROC of the detector for every try of every row in 8 bits, against the same scans clean.

    'worst' takes each scan's lowest score over all rows. In the ladder's order.
    """
    clean = torch.tensor(own["clean"]["scores"][0])
    lowest, found = torch.full_like(clean, torch.inf), {}

    def told(some: Tensor, attacked: Tensor) -> dict[str, Any]:
        chosen = [groups[i] for i in some.nonzero()[:, 0].tolist()]
        return {**separation(clean[some], attacked, chosen), "n": len(chosen)}

    for name in ORDER:
        row = own.get(name, {})
        if not row.get("scores"):
            continue
        tried = torch.tensor([c != "-" for c in row["right"]])
        scores = torch.tensor(row["scores"])
        for i, attacked in enumerate(scores):
            label = f"{name} ({i + 1})" if len(scores) > 1 else name
            found[label] = told(tried, attacked)
        if name != NOISE:
            lowest[tried] = torch.minimum(lowest[tried], scores.amin(0))
    attacked = lowest.isfinite()
    if attacked.any():
        found["worst"] = told(attacked, lowest[attacked])
    return found


def compare_rows(rows: Rows, system: str, watched: Sequence[int], slack: float) -> list[str]:
    """Laws between rows on the scans that every row was tried on; a sentence for each broken one.

    White-box attacks leave no more right than transferred ones, those no more than Square, that
    no more than noise, and exact gradients no more than approximated ones; one scan is forgiven.
    """
    own = rows_of(rows, system)
    warnings = []
    for weak, strong in PAIRS:
        if weak not in own or strong not in own:
            continue
        both = [i for i in watched if "-" not in (own[weak]["right"][i], own[strong]["right"][i])]
        left = [
            sum(own[name]["right"][i] == "1" for i in both) / max(len(both), 1)
            for name in (weak, strong)
        ]
        one = 1 / max(len(both), 1)  # a scan may fall to luck
        if left[1] > left[0] + max(slack, one + 1e-9):
            warnings.append(
                f"{system}: {strong} leaves {left[1]:.3f} of {len(both)} scans right, more than "
                f"{weak} ({left[0]:.3f}): gradients may be masked"
            )
    return warnings
