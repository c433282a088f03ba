"""The command on the tiny system: every attack has its row, in the scans' order."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bench.result_file import ResultFile
from bench.stability import run
from bench.stability.outcomes import unpack
from core.pipeline import MedFedPure
from core.stability import RADII, find_flips
from train.data.dataset import Batch, ScanDataset


def build(pipeline: MedFedPure, fold: ScanDataset) -> run.Hospitals:
    """Return two hospitals, one of which says the opposite, that take turns."""
    other = copy.deepcopy(pipeline.classifier)
    other.temperature.fill_(-1.0)
    readers = [1 + i % 2 for i in range(len(fold))]
    return run.Hospitals({1: pipeline.classifier, 2: other}, readers, fold, batch_size=2)


def test_every_scan_is_read_at_its_hospital(pipeline: MedFedPure, four: ScanDataset) -> None:
    hospitals = build(pipeline, four)
    found = hospitals.read(lambda _, batch: batch.x, range(4), "clean")
    for i in range(4):
        x, y = four.batch([i], torch.device("cpu"))
        classifier = hospitals.classifiers[hospitals.readers[i]]
        assert bool(found.right[i]) == bool(classifier(x).argmax(1) == y)
        alone = find_flips(classifier, x).distance[0]
        assert torch.isclose(found.distance[i], alone) or found.distance[i] == alone


def test_every_attack_has_its_row(
    pipeline: MedFedPure, four: ScanDataset, store: ResultFile
) -> None:
    hospitals = build(pipeline, four)
    run.measure(store, hospitals, steps=2, checked=2)
    rows = store.content["rows"]
    assert list(rows) == [
        "scans", "clean", "grain", "sign noise", "PGD-7", "APGD-CE", "HCMOA", "HCMOA 0.25",
        "HCMOA 0.5", "CHCMOA 0.0075", "CHCMOA 0.015", "missed", "outcomes",
    ]  # fmt: skip
    for name in list(rows)[1:-2]:
        assert len(unpack(rows[name]).right) == 4 and rows[name]["radii"][: len(RADII)]
    assert rows["CHCMOA 0.015"]["attacked"] == 4  # all scans, where there are few
    assert rows["missed"]["n"] == 2


def test_grain_is_drawn_from_the_scans_seed() -> None:
    x = torch.full((2, 1, 8, 8), 0.5)
    both = run.add_grain(Batch(x, torch.tensor([0, 1]), [4, 5]))
    alone = run.add_grain(Batch(x[1:], torch.tensor([1]), [5]))
    assert torch.equal(both[1:], alone) and not torch.equal(both[0], both[1])
    assert abs(float((both - x).std()) - run.GRAIN) < 0.002


def test_other_attacks_find_what_the_search_finds(pipeline: MedFedPure, four: ScanDataset) -> None:
    x, y = four.batch(range(4), torch.device("cpu"))
    odds = pipeline.classifier(x).diff(dim=1)[:, 0]

    def near(z: Tensor) -> Tensor:
        return pipeline.classifier(z) - torch.stack([torch.zeros(4), odds - 1e-4], 1)

    found = run.find_otherwise(near, Batch(x, y, [0, 1, 2, 3]), 0.0075)  # type: ignore[arg-type]
    assert found.all() and (find_flips(near, x, (0.0075,), steps=1).distance <= 0.0076).all()
