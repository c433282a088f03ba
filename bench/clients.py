"""What each hospital is tested on: the test scans that fall to it as its training scans do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from train.data.cifar import read_cifar
from train.data.corpus import CIFAR10, Corpus
from train.data.dataset import ScanDataset
from train.data.partition import Row, assign, rows_of
from train.data.scanner_shift import shift
from train.data.sources import find_records, load_scans
from train.data.split import check_files, read_manifest
from train.federated.experiment import Experiment


def test_scans(
    experiment: Experiment,
    corpus: Corpus,
    root: Path,
    cache: Path | None,
    *,
    limit: int = 0,
    manifests: Path | None = None,
) -> list[ScanDataset]:
    """Each client's own test scans as its scanner shows them, at most `limit` of them (0: all).

    Raises:
        DataError: the data differ from the manifest.
    """
    test = _cifar(root, cache) if experiment.protocol == CIFAR10 else _manifest(
        experiment.protocol, root, cache, manifests
    )  # fmt: skip
    config, known = experiment.config.partition, rows_of(corpus)
    rows = []
    for cell, group in zip(test.cells, test.groups, strict=True):
        source, label = cell.rsplit("/", 1)
        rows.append(Row("test", source, int(label), group))
    owners = assign([*known, *rows], config)
    if owners[: len(known)] != assign(known, config):
        raise ValueError("the test scans change who trains on what: the partition is not settled")
    parts = []
    for client in range(config.num_clients):
        mine = [i for i, owner in enumerate(owners[len(known) :]) if owner == client]
        part = test.pick(mine)
        names = [i + len(known) for i in mine]
        seen = shift(part.scans, config.scanner, config.seed, client, names)
        part = ScanDataset(seen, part.labels, part.cells, part.groups)
        parts.append(part.spaced(limit) if limit else part)
    return parts


def _manifest(protocol: str, root: Path, cache: Path | None, manifests: Path | None) -> ScanDataset:
    manifest = read_manifest(protocol, manifests)
    chosen = manifest.fold("test")
    check_files(manifest, root, chosen)
    records = find_records(root, sorted({e.source for e in manifest.entries}))
    scans = load_scans(root, records, cache)
    where = {record.file: i for i, record in enumerate(records)}
    entries = [manifest.entries[i] for i in chosen]
    labels = [e.record.label for e in entries]
    cells = [f"{e.source}/{e.record.label}" for e in entries]
    rows = [where[e.file] for e in entries]
    return ScanDataset(scans[rows], torch.tensor(labels), cells, [e.group for e in entries])


def _cifar(root: Path, cache: Path | None) -> ScanDataset:
    cifar = read_cifar(root, cache)
    cells = [f"{CIFAR10}/{label}" for label in cifar.test_labels]
    groups = np.arange(len(cells)) + len(cifar.train)  # each picture is its own
    return ScanDataset(cifar.test, torch.from_numpy(cifar.test_labels), cells, groups.tolist())
