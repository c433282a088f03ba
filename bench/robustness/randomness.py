"""Stochastic variant: fresh noise for every reading, attacked in expectation (EOT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.parallel import ParallelBatches
from bench.result_file import ResultFile
from bench.robustness.attacks import Attacker, bfloat16_logits
from bench.robustness.evaluate import evaluate
from bench.robustness.systems import System
from core import metrics
from core.attacks import eot
from core.seeds import derive_seed
from train.data.dataset import Batch, ScanDataset

DRAWS = 20
NAMES = ("clean", "A3 with EOT", "A8")
SUBMISSIONS = (1, 5, 20)  # how often a scan is handed in


def measure_randomness(
    store: ResultFile, system: System, fold: ScanDataset, attacker: Attacker, lanes: ParallelBatches
) -> dict[str, Any]:
    """Measure accuracy over `DRAWS` fresh noises: clean, after A3 with EOT, after A8.

    A8 knows the noise of the first draw and attacks that alone. A killed run resumes after its last
    whole batch.
    """

    def attack(scans: Batch) -> list[Tensor]:
        apgd, turn = attacker.apgd(), 0

        def fresh() -> list[int]:
            nonlocal turn
            turn += 1  # beyond the draws that are read with
            return derive_draw_seeds(scans.seeds, DRAWS + turn)

        many = eot(bfloat16_logits(system, scans, draw=fresh), attacker.budget.eot)
        one = bfloat16_logits(system, scans._replace(seeds=derive_draw_seeds(scans.seeds, 0)))
        return [scans.x, *(apgd(f, scans.x, scans.y, scans.seeds) for f in (many, one))]

    def read(scans: Batch, tries: list[Tensor]) -> dict[str, Tensor]:
        return {name: _right(system, x, scans) for name, x in zip(NAMES, tries, strict=True)}

    title, of = f"randomness: {system.name}", list(range(len(fold)))
    state = store.begun(title, {"of": of, "weights": system.key, "done": 0, "said": {}})
    left = fold.pick(state["of"][state["done"] :])
    for part in evaluate(attack, read, left, lanes, title) if len(left) else ():
        for name, right in part.items():
            before = state["said"].get(name, [[] for _ in range(DRAWS)])
            state["said"][name] = [a + b for a, b in zip(before, right.tolist(), strict=True)]
        state["done"] += right.shape[1]
        store.keep(title, state)
    bits = {name: torch.tensor(right) for name, right in state["said"].items()}
    figures = {name: summarize_draws(right, fold.groups) for name, right in bits.items()}
    facts = {"n": len(fold), "draws": DRAWS, "eot": attacker.budget.eot, "weights": system.key}
    return {**facts, **figures}


def check_noise(row: Mapping[str, Any], slack: float) -> list[str]:
    """Return a warning if the attack over many draws is weaker than the attack on one draw.

    Both are read with the same draws of noise, less the first, which the latter knows.
    """
    n = row["draws"]
    mean, single = (
        (n * row[name]["one_shot"]["mean"] - row[name]["first"]) / (n - 1)
        for name in ("A3 with EOT", "A8")
    )
    if mean <= single + slack + 1 / row["n"]:  # a scan may fall to luck
        return []
    return [
        f"EOT over {row['eot']} draws leaves {mean:.3f} right, an attack on one draw {single:.3f}: "
        "the attack in expectation is too weak"
    ]


def derive_draw_seeds(seeds: Sequence[int], draw: int) -> list[int]:
    """Derive the scans' seeds for one draw of noise."""
    return [derive_seed(seed, f"draw {draw}") for seed in seeds]


def summarize_draws(right: Tensor, groups: Sequence[int]) -> dict[str, Any]:
    """Compute the accuracy of single draws, resubmission and votes from readings (DRAWS, N)."""
    shares = right.double().mean(1)
    k, n = round(float(shares.mean()) * right.shape[1]), right.shape[1]
    return {
        "first": float(shares[0]),
        "one_shot": {
            "mean": float(shares.mean()),
            "sd": float(shares.std(correction=0)),
            "interval": metrics.wilson_interval(k, n),
            "interval_by_group": metrics.group_bootstrap_interval(right.double().mean(0), groups),
        },
        "right_in_all": {m: float(right[:m].all(0).double().mean()) for m in SUBMISSIONS},
        "vote": {m: float((right[:m].double().mean(0) > 0.5).double().mean()) for m in SUBMISSIONS},
    }


@torch.no_grad()
def _right(system: System, x: Tensor, scans: Batch) -> Tensor:
    """Mark the correct readings, bool (DRAWS, B)."""
    draws = (system.logits(x, derive_draw_seeds(scans.seeds, i)) for i in range(DRAWS))
    return torch.stack([logits.argmax(1) == scans.y for logits in draws]).cpu()
