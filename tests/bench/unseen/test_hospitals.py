"""Every test scan is read by the hospital whose patients are like the scan's."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.robustness.attacks import CLEAN, Attack
from bench.unseen import run
from bench.unseen.hospitals import find_readers
from bench.unseen.run import Answers, read_at_hospitals
from train.data.dataset import ScanDataset
from train.data.partition import PartitionConfig, assign, list_rows
from train.data.split import Manifest, read_manifest


def pick_test_fold(manifest: Manifest) -> ScanDataset:
    entries = [entry for entry in manifest.entries if entry.fold == "test"]
    labels = torch.tensor([entry.record.label for entry in entries])
    scans = np.zeros((len(entries), 1, 1), np.uint8)
    groups = [entry.group for entry in entries]
    sources = [entry.source for entry in entries]
    return ScanDataset(scans, labels, sources, groups, entries=entries, manifest=manifest)


@pytest.fixture(scope="module")
def patients() -> Manifest:
    return read_manifest("patients")


@pytest.fixture(scope="module")
def test(patients: Manifest) -> ScanDataset:
    return pick_test_fold(patients)


def make_systems(count: int, config: PartitionConfig) -> Any:
    about = SimpleNamespace(info={"federated": asdict(config)})
    return dict.fromkeys(range(1, count + 1), about)


def test_a_patient_is_read_where_patients_of_that_site_trained(
    patients: Manifest, test: ScanDataset
) -> None:
    config = PartitionConfig("site")
    readers = find_readers(make_systems(10, config), test, patients)
    own = {"br35h": {5, 9, 10}, "brain-tumor-mri": {5, 6, 7, 8}, "ixi": {5}}
    for source, hospitals in own.items():
        found = [r for r, e in zip(readers, test.entries, strict=True) if e.source == source]
        assert set(found) >= hospitals
        # some are near-duplicates of another source's scans, and go where these are
        assert sum(r in hospitals for r in found) > 0.8 * len(found), source
    sites = {"DU": 1, "HT": 2, "CS": 3, "FG": 4, "EZ": 4}
    for reader, entry in zip(readers, test.entries, strict=True):
        if entry.source == "tcga-lgg":
            assert reader == sites[entry.patient.split("_")[0]], entry.patient
    rows = list_rows(patients)
    trained = [row for row in rows if row.fold in ("train", "val")]
    every = zip([row.group for row in rows], assign(rows, config), strict=True)
    known = zip([row.group for row in trained], assign(trained, config), strict=True)
    owners = dict(every)
    assert all(owners[group] == owner for group, owner in known)


def test_other_weights_are_read_at_the_first_hospital(
    patients: Manifest, test: ScanDataset
) -> None:
    systems = make_systems(10, PartitionConfig("site"))
    other = replace(patients, entries=patients.entries[1:])
    assert set(find_readers(systems, test, other)) == {1}
    assert set(find_readers({None: systems[1]}, test, patients)) == {None}


def test_answers_keep_the_order_of_the_scans(
    test_fold: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(system: Any, fold: ScanDataset, attack: Attack, batch_size: int) -> Answers:
        sums = torch.tensor([float(scan.sum()) for scan in fold.scans], dtype=torch.float64)
        alarms = torch.full((len(fold),), system == 2)
        return Answers({"defence": system * sums}, alarms, ~alarms)

    monkeypatch.setattr(run, "read_scans", read)
    four, readers = test_fold.thin(4), [2, 1, 1, 2]
    systems: Any = {1: 1, 2: 2}
    answers = read_at_hospitals(systems, readers, four, CLEAN, 2)
    expected = [n * float(scan.sum()) for n, scan in zip(readers, four.scans, strict=True)]
    assert answers.log_odds["defence"].tolist() == expected
    assert answers.flagged.tolist() == [True, False, False, True]
    assert answers.refused.tolist() == [False, True, True, False]
