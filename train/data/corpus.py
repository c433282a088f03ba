"""Scans of a protocol: a corpus for training and validation, or one fold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from train.data import split
from train.data.cifar import read_cifar
from train.data.dataset import ScanDataset, space_evenly
from train.data.errors import DataError
from train.data.masks import MaskArray, load_mask_array
from train.data.sources import (
    ALL_SOURCES,
    TABLE_SOURCES,
    Record,
    check_sources,
    find_class_records,
    find_records,
    hash_files,
    load_scans,
)
from train.data.split import (
    Entry,
    Manifest,
    check_files,
    choose_fold,
    keep_sources,
    read_manifest,
    split_by_group,
)

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
        """Number of classes in the labels."""
        return int(torch.cat([self.train.labels, self.val.labels]).max()) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of one scan."""
        shape = self.train.scans.shape[1:]
        return shape if len(shape) == 3 else (1, *shape)


def load_corpus(
    protocol: str,
    root: Path,
    cache: Path | None,
    manifests: Path | None = None,
    sources: Sequence[str] = (),
    *,
    with_masks: bool = False,
) -> Corpus:
    """Load the training and validation folds of a protocol; the test fold is not used.

    `cifar10` and `folder` (a folder per class) are split by hash; the others have a committed
    manifest, or one in the folder `manifests`, and may be limited to some of their sources. Of
    these `with_masks` loads the tumour masks that the folder holds.

    Raises:
        DataError: the data folder is missing, empty, lacks a source or a class, or differs from the
            manifest.
    """
    if sources and protocol not in split.PROTOCOLS:
        raise DataError(f"protocol {protocol!r} has no sources to choose from: leave --sources out")
    if protocol == CIFAR10:
        return _load_cifar(root, cache)
    if protocol == FOLDER:
        records = find_class_records(root)
        scans = load_scans(root, records, cache)
        entries = split_by_group(records, hash_files(root, records), scans)
        return _build_corpus(Manifest(FOLDER, tuple(entries)), records, scans)
    manifest = read_manifest(protocol, manifests)
    manifest = keep_sources(manifest, sources) if sources else manifest
    needed = {e.source for e in manifest.entries if e.fold in ("train", "val")}
    order = [source for source in ALL_SOURCES if source in needed]
    check_sources(root, order, f"protocol {protocol!r}", "--sources")
    records, scans = _read_scans(manifest, manifest.find_positions("train", "val"), root, cache)
    masks = load_mask_array(records, root, cache) if with_masks else None
    return _build_corpus(manifest, records, scans, masks)


def load_fold(
    protocol: str,
    name: str,
    root: str | Path,
    *,
    limit: int | None = None,
    cache: str | Path | None = ".cache",
    manifests: Path | None = None,
) -> ScanDataset:
    """Load fold `name` ('train', 'val' or 'test') of a protocol with a manifest.

    Without a cache only the fold's own files are decoded.

    Raises:
        DataError: the protocol is unknown, the fold is empty, or a file differs from the manifest.
        ValueError: the limit is below 1.
    """
    manifest = read_manifest(protocol, manifests)
    positions = manifest.find_positions(name)
    if not positions:
        raise DataError(f"the manifest of {protocol!r} has no scans in fold {name!r}")
    positions = [positions[i] for i in space_evenly(len(positions), limit)]
    records, scans = _read_scans(manifest, positions, root, cache)
    return _build_dataset(manifest, positions, records, scans)


def load_all(
    protocol: str,
    root: str | Path,
    *,
    cache: str | Path | None = ".cache",
    manifests: Path | None = None,
) -> ScanDataset:
    """Load the scans of all folds of a protocol with a manifest, and those put aside.

    Raises:
        DataError: the protocol is unknown, or a file differs from the manifest.
    """
    manifest = read_manifest(protocol, manifests)
    positions = range(len(manifest.entries))
    records, scans = _read_scans(manifest, positions, root, cache)
    return _build_dataset(manifest, positions, records, scans)


def _read_scans(
    manifest: Manifest, positions: Sequence[int], root: str | Path, cache: str | Path | None
) -> tuple[list[Record], np.ndarray]:
    """Read at least the scans at `positions`, verified; with a cache, all scans of the sources."""
    if cache is None:
        check_files(manifest, root, positions)
        records = [manifest.entries[i].record for i in positions]
    else:
        records = find_records(root, sorted({manifest.entries[i].source for i in positions}))
        check_files(manifest, root, positions)
    return records, load_scans(root, records, cache)


def _build_corpus(
    manifest: Manifest,
    records: Sequence[Record],
    scans: np.ndarray,
    masks: MaskArray | None = None,
) -> Corpus:
    def build_fold(name: str) -> ScanDataset:
        positions = manifest.find_positions(name)
        if not positions:
            raise DataError(f"the {name} fold of {manifest.protocol!r} is empty: more scans needed")
        return _build_dataset(manifest, positions, records, scans, masks)

    return Corpus(build_fold("train"), build_fold("val"), manifest.sha256, manifest.protocol)


def _build_dataset(
    manifest: Manifest,
    positions: Sequence[int],
    records: Sequence[Record],
    scans: np.ndarray,
    masks: MaskArray | None = None,
) -> ScanDataset:
    row_of = {r.file: i for i, r in enumerate(records)}
    entries = tuple(manifest.entries[i] for i in positions)
    _check_tables(manifest, entries, {r.file: r.label for r in records})
    rows = [row_of[e.file] for e in entries]
    labels = [records[i].label for i in rows]
    return ScanDataset(
        np.ascontiguousarray(scans[rows]),
        torch.tensor(labels),
        [f"{e.source}/{label}" for e, label in zip(entries, labels, strict=True)],
        [e.group for e in entries],
        tuple(positions),
        entries,
        manifest,
        None if masks is None else masks.masks[rows],
        None if masks is None else masks.is_outlined[rows],
    )


def _check_tables(manifest: Manifest, entries: Sequence[Entry], labels: Mapping[str, int]) -> None:
    """Raise DataError if the sources' tables lack files of the manifest or label them otherwise."""
    for entry in entries:
        if entry.file not in labels:
            raise DataError(
                f"the table of source {entry.source!r} has no line for {entry.file}, which the "
                f"manifest of {manifest.protocol!r} names"
            )
        if entry.source in TABLE_SOURCES and labels[entry.file] != entry.record.label:
            raise DataError(
                f"the table of source {entry.source!r} labels {entry.file} otherwise than the "
                f"manifest of {manifest.protocol!r}"
            )


def _load_cifar(root: Path, cache: Path | None) -> Corpus:
    """Load the official training pictures; the hash of each decides on training or validation."""
    cifar = read_cifar(root, cache)
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in cifar.train]
    is_val = np.array([choose_fold(digest) == "val" for digest in digests])

    def build_fold(chosen: np.ndarray) -> ScanDataset:
        labels = cifar.train_labels[chosen]
        cells = [f"{CIFAR10}/{label}" for label in labels]
        groups = np.flatnonzero(chosen).tolist()  # each picture is its own
        return ScanDataset(cifar.train[chosen], torch.from_numpy(labels), cells, groups)

    if is_val.all() or not is_val.any():
        raise DataError(f"too few pictures for a validation fold: {len(is_val)}")
    lines = sorted(f"{d},{label}" for d, label in zip(digests, cifar.train_labels, strict=True))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return Corpus(build_fold(~is_val), build_fold(is_val), digest, cifar.title)
