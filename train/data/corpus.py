"""What a protocol trains on: scans of its training and validation folds, weights, split hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from train.data import split
from train.data.cifar import read_cifar
from train.data.dataset import ScanDataset
from train.data.sources import DataError, Record, file_sha256, find_folder, find_records, load_scans
from train.data.split import Manifest, check_files, fold_of, read_manifest, split_by_group

CIFAR10, FOLDER = "cifar10", "folder"
PROTOCOLS = (*split.PROTOCOLS, CIFAR10, FOLDER)


@dataclass(frozen=True)
class Corpus:
    """Training and validation scans of one protocol."""

    train: ScanDataset
    val: ScanDataset
    split_sha256: str
    protocol: str

    @property
    def num_classes(self) -> int:
        """Classes that the labels name."""
        return int(torch.cat([self.train.labels, self.val.labels]).max()) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one scan."""
        shape = self.train.scans.shape[1:]
        return shape if len(shape) == 3 else (1, *shape)


def load_corpus(
    protocol: str, root: Path, cache: Path | None, manifests: Path | None = None
) -> Corpus:
    """Reads the scans of a protocol's training and validation folds; no test scan is learned from.

    `cifar10` and `folder` (a folder per class) split themselves by the same hash rule; the others
    have a committed manifest, or one in the folder `manifests`.

    Raises:
        DataError: the data folder is missing, empty, lacks a class or differs from the manifest.
    """
    if protocol == CIFAR10:
        return _from_cifar(root, cache)
    if protocol == FOLDER:
        records = find_folder(root)
        scans = load_scans(root, records, cache)
        entries = split_by_group(records, file_sha256(root, records), scans)
        return _corpus(Manifest(FOLDER, tuple(entries)), records, scans)
    manifest = read_manifest(protocol, manifests)
    records = find_records(root, sorted({e.source for e in manifest.entries}))
    check_files(manifest, root, manifest.fold("train", "val"))
    return _corpus(manifest, records, load_scans(root, records, cache))


def _corpus(manifest: Manifest, records: Sequence[Record], scans: np.ndarray) -> Corpus:
    where = {r.file: i for i, r in enumerate(records)}

    def fold(name: str) -> ScanDataset:
        entries = [manifest.entries[i] for i in manifest.fold(name)]
        if not entries:
            raise DataError(f"the {name} fold of {manifest.protocol!r} is empty: more scans needed")
        rows = [where[e.file] for e in entries]
        labels = [records[i].label for i in rows]
        cells = [f"{records[i].source}/{records[i].label}" for i in rows]
        groups = [e.group for e in entries]
        return ScanDataset(np.ascontiguousarray(scans[rows]), torch.tensor(labels), cells, groups)

    return Corpus(fold("train"), fold("val"), manifest.sha256, manifest.protocol)


def _from_cifar(root: Path, cache: Path | None) -> Corpus:
    """The official training pictures, the hash rule's validation tenth set apart."""
    cifar = read_cifar(root, cache)
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in cifar.train]
    is_val = np.array([fold_of(digest) == "val" for digest in digests])

    def fold(chosen: np.ndarray) -> ScanDataset:
        labels = cifar.train_labels[chosen]
        cells = [f"{CIFAR10}/{label}" for label in labels]
        groups = np.flatnonzero(chosen).tolist()  # each picture is its own
        return ScanDataset(cifar.train[chosen], torch.from_numpy(labels), cells, groups)

    if is_val.all() or not is_val.any():
        raise DataError(f"too few pictures for a validation fold: {len(is_val)}")
    lines = sorted(f"{d},{label}" for d, label in zip(digests, cifar.train_labels, strict=True))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Corpus(fold(~is_val), fold(is_val), digest, cifar.title)
