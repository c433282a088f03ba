"""Each hospital's test scans, dealt out by the rule of its training scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from train.data.cifar import read_cifar
from train.data.corpus import CIFAR10, Corpus, load_fold
from train.data.dataset import ScanDataset
from train.data.partition import assign, list_fold_rows, list_rows
from train.data.scanner_shift import shift
from train.federated.experiment import Experiment


def hospital_test_scans(
    experiment: Experiment,
    corpus: Corpus,
    root: Path,
    cache: Path | None,
    *,
    limit: int = 0,
    manifests: Path | None = None,
) -> list[ScanDataset]:
    """Return each client's test scans as its scanner shows them, at most `limit` (0: all).

    Raises:
        DataError: the data differ from the manifest.
    """
    if experiment.protocol == CIFAR10:
        test = _load_cifar(root, cache)
    else:
        test = load_fold(experiment.protocol, "test", root, cache=cache, manifests=manifests)
    config, known = experiment.config.partition, list_rows(corpus)
    owners = assign([*known, *list_fold_rows(test, "test")], config)
    if owners[: len(known)] != assign(known, config):
        raise ValueError("the test scans change who trains on what: the partition is not settled")
    parts = []
    for client in range(config.num_clients):
        mine = [i for i, owner in enumerate(owners[len(known) :]) if owner == client]
        part = test.pick(mine)
        names = [i + len(known) for i in mine]
        seen = shift(part.scans, config.scanner, config.seed, client, names)
        parts.append(replace(part, scans=seen).thin(limit or None, truncate=True))
    return parts


def _load_cifar(root: Path, cache: Path | None) -> ScanDataset:
    cifar = read_cifar(root, cache)
    cells = [f"{CIFAR10}/{label}" for label in cifar.test_labels]
    groups = np.arange(len(cells)) + len(cifar.train)  # each picture is its own group
    return ScanDataset(cifar.test, torch.from_numpy(cifar.test_labels), cells, groups.tolist())
