"""Tables I and II: every method trained on the same clients, each client's own model on its scans.

The round is chosen on validation scans. Besides the paper's attack on the classifier there is one
through the whole of each method, and each client's attack on every other's model ('internal
evasion', Kim et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.clients import test_scans
from bench.data import Batch
from bench.federation import curves
from bench.federation.cost import cost
from bench.federation.methods import METHODS, Method, Table, in_order, preset_of
from bench.federation.trainings import Federation, Places, decisive, federation
from bench.progress import say
from bench.provenance import key_of
from bench.result_file import ResultFile
from bench.robustness.rows import Row, attacked
from bench.summaries import called_right
from core import metrics
from train.config import read_preset
from train.data.corpus import Corpus
from train.data.dataset import ScanDataset, batches
from train.device import pick_device
from train.federated import metrics as fed_metrics
from train.federated.experiment import read_experiment

BATCH = 25


class Reader(NamedTuple):
    """One client's model: what the paper's attacker differentiates, and what is deployed."""

    surface: Callable[[Tensor], Tensor]  # logits (B, C) of scans
    whole: Callable[[Tensor, Sequence[int]], Tensor]  # the same of scans and their noise seeds
    cost: dict[str, int]


def run(
    store: ResultFile,
    table: Table,
    setting: str,
    methods: Sequence[Method],
    corpus: Corpus,
    places: Places,
    *,
    seed: int,
    limit: int,
    lite_limit: int,
    evasion_limit: int,
) -> None:
    """One row of `store` for each method; a killed run goes on, in the middle of a training too."""
    presets = {m: read_preset(preset_of(table, setting, m)) for m in METHODS}
    decides = {m.name: {"preset": decisive(p, whole=m.whole)} for m, p in presets.items()}
    # every method has the same clients
    scans = test_scans(
        read_experiment(table.presets[setting], table.protocol, seed), corpus, places.data,
        places.cache, limit=limit, manifests=places.manifests,
    )  # fmt: skip
    for method in methods:
        own = federation(preset_of(table, setting, method), table.protocol, seed, corpus, places)

        def row(method: Method = method, own: Federation = own) -> dict[str, Any]:
            say(f"{method.name}: {own.preset}")
            training = own.train()
            readers = _whole(own) if method.whole else _mixtures(own)
            found: dict[str, Any] = {
                "meaning": method.meaning,
                "preset": own.preset,
                "digest": own.experiment.digest,
                "best_round": training["best_round"],
                "rounds": [r["summary"] and _curve(r["summary"]) for r in training["rounds"]],
                "cost": readers[0].cost,
                "attacks": {
                    a.name: _figures(readers, _fewer(scans, a, lite_limit), a)
                    for a in table.attacks
                },
            }
            if evasion_limit and not method.whole:
                few = [part.spaced(evasion_limit) for part in scans]
                found["evasion"] = evasion(readers, few, table.attacks[1])
            return found

        store.row(method.name, row, **decides[method.name])
    rows = in_order(store.content["rows"])
    groups = {
        a.name: [g for part in _fewer(scans, a, lite_limit) for g in part.groups]
        for a in table.attacks
    }
    store.content["tests"] = compare(rows, groups)
    store.content["stale"] = [n for n, r in rows.items() if r["key"] != key_of(decides[n])]
    store.write()
    curves.draw(
        rows,
        f"{table.dataset}, {table.backbone} clients, {setting} setting",
        store.path.with_suffix(".svg"),
    )


def compare(
    rows: dict[str, Any], groups: dict[str, list[int]], best: str = "MedFedPure"
) -> dict[str, Any]:
    """McNemar's exact test between `best` and each other method, on the same scans.

    `difference` is the 95 % interval of the difference in accuracy when near-duplicate groups, by
    attack in `groups`, are redrawn: McNemar's test takes each scan for one of its own.
    """
    tests: dict[str, Any] = {}
    for name, row in rows.items():
        if best not in rows or name == best:
            continue
        tests[name] = {}
        for attack, figures in row["attacks"].items():
            mine, theirs = (_bits(r["attacks"][attack]) for r in (rows[best], row))
            b, c, p = metrics.mcnemar(mine, theirs)
            moved = mine.double() - theirs.double()
            tests[name][attack] = {
                f"only_{best}": b, "only_other": c, "p": p, "n": figures["n"],
                "difference": metrics.group_bootstrap_interval(moved, groups[attack]),
            }  # fmt: skip
    return tests


def evasion(readers: Sequence[Reader], scans: Sequence[ScanDataset], attack: Row) -> dict[str, Any]:
    """Accuracy of client j's model on its scans, attacked through client i's: rows i, columns j."""
    matrix = np.zeros((len(readers), len(readers)))
    for i, attacker in enumerate(readers):
        for j, victim in enumerate(readers):
            right = _right(attacker, victim, scans[j], attack)
            matrix[i, j] = float(right.double().mean())
    own = np.eye(len(readers), dtype=bool)
    return {
        "matrix": matrix.tolist(),
        "n": sum(len(part) for part in scans),
        "diagonal": float(matrix[own].mean()),
        "off_diagonal": float(matrix[~own].mean()) if len(readers) > 1 else None,
    }


def _figures(
    readers: Sequence[Reader], scans: Sequence[ScanDataset], attack: Row
) -> dict[str, Any]:
    right = [_right(r, r, part, attack) for r, part in zip(readers, scans, strict=True)]
    clients = {
        c: {"accuracy": float(bits.double().mean()), fed_metrics.COUNT: len(bits)}
        for c, bits in enumerate(right)
    }
    together = torch.cat(right)
    k, n = int(together.sum()), len(together)
    groups = [group for part in scans for group in part.groups]
    return {
        "meaning": attack.meaning,
        **fed_metrics.summary(clients)["accuracy"],
        "k": k,
        "n": n,
        "interval": metrics.wilson_interval(k, n),
        "interval_by_group": metrics.group_bootstrap_interval(together, groups),
        "clients": [[int(bits.sum()), len(bits)] for bits in right],
        "right": "".join("01"[int(bit)] for bit in together),
    }


def _right(attacker: Reader, victim: Reader, scans: ScanDataset, row: Row) -> Tensor:
    """Whether the victim reads each scan right after the attacker's attack on it, bool (N,)."""
    device, out = pick_device(), []
    for rows in batches(len(scans), BATCH):
        x, y = scans.batch(rows, device)
        seeds = list(rows)
        target = (lambda z, own=seeds: attacker.whole(z, own)) if row.whole else attacker.surface
        x = attacked(row, target, Batch(x, y, seeds))
        with torch.no_grad():
            out.append(called_right("a client's model", victim.whole(x, seeds), y))
    return torch.cat(out)


def _mixtures(own: Federation) -> list[Reader]:
    """The clients' classifiers as they finished them, nothing around them."""
    readers, shape = [], own.corpus.shape
    for model in own.models():
        count = cost(model, lambda m=model, s=shape: m(torch.zeros(1, *s, device=pick_device())))
        readers.append(Reader(model, lambda x, _, m=model: m(x), count._asdict()))
    return readers


def _whole(own: Federation) -> list[Reader]:
    """The clients' whole systems."""
    readers, shape = [], own.corpus.shape
    for system in own.systems():
        count = cost(system, lambda s=system: s.read(torch.full(shape, 0.5)))
        readers.append(Reader(system.classifier_logits, system.logits, count._asdict()))
    return readers


def _fewer(scans: Sequence[ScanDataset], row: Row, lite_limit: int) -> list[ScanDataset]:
    return [part.spaced(lite_limit) for part in scans] if row.whole else list(scans)


def _bits(figures: dict[str, Any]) -> Tensor:
    return torch.tensor([bit == "1" for bit in figures["right"]])


def _curve(summary: dict[str, Any]) -> dict[str, float]:
    return {key: summary[key]["mean"] for key in ("clean", "pgd") if key in summary}
