"""Test scans that trained the weights, themselves or by another scan of their patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.provenance import ProvenanceError
from bench.unseen.overlap import count_overlap, find_split, find_used_units
from core.checkpoint import WeightsError, write_manifest
from core.pipeline import MedFedPure
from core.weights import PARTS, save_part
from train.data.dataset import ScanDataset
from train.data.errors import DataError
from train.data.split import Entry, Manifest, keep_sources, read_manifest


def entry(name: str, group: int, fold: str, source: str = "br35h", patient: str = "") -> Entry:
    kind = "tumour" if name < "e" else "no tumour"
    return Entry(f"{source}/{name}", f"sha-{name}", source, group, fold, kind, patient)


TESTED = Manifest(
    "patients",
    (
        entry("a", 0, "test", patient="P"),
        entry("b", 0, "test", patient="P"),
        entry("c", 1, "test", patient="Q"),
        entry("d", 2, "test"),
        entry("e", 3, "test"),
        entry("f", 4, "test", "ixi", "R"),
        entry("g", 4, "test", "ixi", "R"),
        entry("h", 5, "train"),
    ),
)
TRAINED = Manifest(
    "patients",
    (
        entry("b", 50, "train"),
        entry("c", 51, "test"),
        entry("d", 52, "val"),
        entry("e", 53, "aside"),
        entry("x", 54, "train"),
    ),
)


def fold_of(manifest: Manifest) -> ScanDataset:
    positions = manifest.find_positions("test")
    entries = tuple(manifest.entries[i] for i in positions)
    return ScanDataset(
        np.zeros((len(entries), 4, 4), np.uint8),
        torch.tensor([e.record.label for e in entries]),
        [f"{e.source}/{e.record.label}" for e in entries],
        [e.group for e in entries],
        positions,
        entries,
        manifest,
    )


def test_a_unit_is_used_if_one_of_its_scans_was() -> None:
    assert find_used_units(TESTED, TRAINED) == {0, 2}
    assert count_overlap(fold_of(TESTED), TRAINED) == {
        "br35h": {
            "n": 5, "used_scans": 2, "used_units": 1, "left": 2, "left_tumours": 1,
            "left_units": 2, "left_patients": 1,
        },
        "ixi": {
            "n": 2, "used_scans": 0, "used_units": 0, "left": 2, "left_tumours": 0,
            "left_units": 1, "left_patients": 1,
        },
    }  # fmt: skip


def test_weights_of_the_split_itself_have_used_no_test_scan() -> None:
    manifest = read_manifest("patients")
    used = find_used_units(manifest, manifest)
    assert used.isdisjoint(e.group for e in manifest.entries if e.fold == "test")
    assert {e.group for e in manifest.entries if e.fold == "train"} <= used


def test_the_split_of_weights_is_found(weights: Path, data: tuple[Path, Path]) -> None:
    assert find_split(weights, data[1]) == read_manifest("paper", data[1])
    with pytest.raises(ProvenanceError, match="trained on another split 'paper'"):
        find_split(weights, Path(__file__).parents[3] / "train" / "manifests")
    with pytest.raises(WeightsError, match="There are no weights"):
        find_split(data[0], data[1])


def test_weights_of_two_splits_are_refused(
    pipeline: MedFedPure, data: tuple[Path, Path], tmp_path: Path
) -> None:
    for keep, (name, place) in enumerate(list(PARTS.items())[:2]):
        save_part(pipeline.get_submodule(place), tmp_path, name, {}, f"split {keep}")
        write_manifest(
            tmp_path, [name], preset="tiny", protocol="paper", commit="none", keep=bool(keep)
        )
    with pytest.raises(ProvenanceError, match="of several splits"):
        find_split(tmp_path, data[1])


def test_weights_of_some_sources_have_the_split_of_these(
    pipeline: MedFedPure, data: tuple[Path, Path], tmp_path: Path
) -> None:
    split = keep_sources(read_manifest("patients", data[1]), ["br35h"])
    name, place = next(iter(PARTS.items()))
    save_part(pipeline.get_submodule(place), tmp_path, name, {}, split.sha256)
    write_manifest(tmp_path, [name], preset="tiny", protocol=split.protocol, commit="none")
    assert find_split(tmp_path, data[1]) == split
    assert {e.source for e in split.entries} == {"br35h"}


def test_weights_without_a_committed_split_are_refused(
    pipeline: MedFedPure, data: tuple[Path, Path], tmp_path: Path
) -> None:
    name, place = next(iter(PARTS.items()))
    save_part(pipeline.get_submodule(place), tmp_path, name, {}, "split")
    write_manifest(tmp_path, [name], preset="tiny", protocol="folder", commit="none")
    with pytest.raises(DataError, match="unknown protocol 'folder'"):
        find_split(tmp_path, data[1])
