"""Attacks on one client's model, read by another's: the harness on a federation's scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.parallel import ParallelBatches
from bench.robustness.attacks import DEFENCE, Attack, Attacker
from bench.robustness.evaluate import evaluate
from bench.summaries import mark_correct
from train.data.dataset import Batch, ScanDataset


class ClientModel(NamedTuple):
    """One client's model: the classifier that the paper's attacker sees, and the deployed whole."""

    classify: Callable[[Tensor], Tensor]  # logits (B, C) of scans
    logits: Callable[[Tensor, Sequence[int]], Tensor]  # the same of scans and their noise seeds
    cost: dict[str, int]


def evaluate_transfer(
    attack: Attack,
    source: ClientModel,
    victim: ClientModel,
    data: ScanDataset,
    lanes: ParallelBatches,
) -> Tensor:
    """Return whether `victim` reads scans correctly after an attack on `source`, bool (N,).

    The attack is one that has its own radius.
    """

    def generate(scans: Batch) -> Iterator[Tensor]:
        x, y, seeds = scans
        whole = (lambda z: source.logits(z, seeds)) if attack.knows == DEFENCE else source.classify
        yield attack.algorithm(Attacker(0.0))(whole, x, y, seeds) if attack.algorithm else x

    @torch.no_grad()
    def read(scans: Batch, tries: list[Tensor]) -> Tensor:
        (x,) = tries
        return mark_correct("a client's model", victim.logits(x, scans.seeds), scans.y)

    fold = replace(data, seeds=range(len(data)))  # a seed is a position among the client's scans
    return torch.cat(list(evaluate(generate, read, fold, lanes, attack.key)))
