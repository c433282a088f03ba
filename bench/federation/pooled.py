"""Federated against pooled training: the same preset, the same scans, the same test scans.

Of the federation each test scan is read by the hospital that it falls to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data import Batch
from bench.federation.comparison import Reader, evasion
from bench.result_file import ResultFile
from bench.robustness.rows import Row, attacked, rows_named
from bench.summaries import by_label, called_right
from core import metrics
from core.attacks import PGD
from core.diffusion import Diffusion
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset, batches
from train.phases import diffusion, mae
from train.phases.diffusion import DiffusionConfig

BATCH = 32
TRANSFERRED = 8  # scans a hospital, attacked by each of the others
T_MAX = 250  # depths at which noise is predicted: shares of this, as in training's validation
READERS = ("defence", "trained-mixture", "undefended")


def run(
    store: ResultFile,
    federated: Sequence[MedFedPure],
    pooled: MedFedPure,
    scans: Sequence[ScanDataset],
    eps: float,
) -> None:
    """Rows `clean`, `A0`, `transfer`, `mae` and `diffusion`; `scans` are those of hospitals 1 to N.

    `transfer` is internal evasion (Kim et al. 2023): hospital i attacks scans of hospital j through
    its own classifier, and the whole system of j reads them.
    """
    own, same = list(federated), [pooled] * len(federated)
    for row in rows_named(["clean", "A0"], eps):
        store.row(row.name, lambda r=row: _accuracy(own, same, scans, r))
    readers = [Reader(s.classifier_logits, s.logits, {}) for s in own]
    few = [part.spaced(TRANSFERRED) for part in scans]
    store.row("transfer", lambda: evasion(readers, few, _transfer(eps)))
    store.row("mae", lambda: _errors(own[0], pooled, scans, _mae_errors))
    store.row("diffusion", lambda: _errors(own[0], pooled, scans, _diffusion_errors))


def _transfer(eps: float) -> Row:
    return Row("A2", "PGD-20 on one hospital's classifier", PGD(eps, max(eps / 8, 1e-9), 20))


def _accuracy(
    own: Sequence[MedFedPure], same: Sequence[MedFedPure], scans: Sequence[ScanDataset], row: Row
) -> dict[str, Any]:
    found: dict[str, Any] = {"meaning": row.meaning, "difference": {}}
    for name in READERS:
        right = {
            kind: torch.cat(
                [_right(s, part, row, name) for s, part in zip(systems, scans, strict=True)]
            )
            for kind, systems in (("federated", own), ("pooled", same))
        }
        labels = torch.cat([part.labels for part in scans])
        found[name] = {kind: by_label(bits, labels) for kind, bits in right.items()}
        b, c, p = metrics.mcnemar(right["federated"], right["pooled"])
        groups = [group for part in scans for group in part.groups]
        gap = right["federated"].double() - right["pooled"].double()
        found["difference"][name] = {
            "points": 100 * float(gap.mean()),
            "interval_by_group": [
                100 * end for end in metrics.group_bootstrap_interval(gap, groups)
            ],
            "only_federated": b, "only_pooled": c, "p": p,
        }  # fmt: skip
    return found


def _right(system: MedFedPure, scans: ScanDataset, row: Row, reader: str) -> Tensor:
    """Whether each scan is read right under the paper's attack on the reader's classifier."""
    surface = system.plain_logits if reader == "undefended" else system.classifier_logits
    out = []
    for rows in batches(len(scans), BATCH):
        x, y = scans.batch(rows, system.device)
        seeds = list(rows)
        x_adv = attacked(row, surface, Batch(x, y, seeds))
        with torch.no_grad():
            logits = system.logits(x_adv, seeds) if reader == "defence" else surface(x_adv)
        out.append(called_right(reader, logits, y))
    return torch.cat(out)


def _errors(
    first: MedFedPure, pooled: MedFedPure, scans: Sequence[ScanDataset], errors: Any
) -> Any:
    """The same figures of both; parts are shared, so that any hospital's are all hospitals'."""
    every = ScanDataset(
        np.concatenate([part.scans for part in scans]),
        torch.cat([part.labels for part in scans]),
        [cell for part in scans for cell in part.cells],
        [group for part in scans for group in part.groups],
    )
    return {"federated": errors(first, every), "pooled": errors(pooled, every), "n": len(every)}


def _mae_errors(system: MedFedPure, scans: ScanDataset) -> dict[str, float]:
    figures = mae.validation(scans, system.device)(system.detector.mae)
    return {name: figures[name] for name in ("random", "lattice")}


def _diffusion_errors(system: MedFedPure, scans: ScanDataset) -> dict[str, float]:
    schedule, config = Diffusion().to(system.device), DiffusionConfig(t_max=T_MAX)
    validate = diffusion.validation(scans, schedule, config, system.device)
    figures = validate(system.purifier.noise_pred)
    return {name: value for name, value in figures.items() if name != "score"}
