"""Targets of the audit: one a patient, evenly over hospitals, and told apart by likeness alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.audits.targets import Target, choose_targets, compare, compare_floors, find_head, rank
from demo.phantom import draw_phantom
from train.data.corpus import Corpus, load_corpus
from train.data.partition import PartitionConfig

TWO = PartitionConfig(num_clients=2, min_scans=2)


@pytest.fixture(scope="module")
def corpus(world: Path) -> Corpus:
    return load_corpus("paper", world / "data", world / "cache", world / "manifests")


@pytest.fixture(scope="module")
def target() -> Target:
    scan = draw_phantom(0, True)[None]
    others = torch.stack([draw_phantom(n, True) for n in range(1, 9)])
    return Target(0, 0, scan, 1, others)


def test_targets_are_of_different_groups_and_of_all_hospitals(corpus: Corpus) -> None:
    found = choose_targets(corpus, TWO, 8, seed=0)
    groups = [corpus.train.groups[t.row] for t in found]
    assert len(set(zip(groups, (t.label for t in found), strict=True))) == len(found) == 8
    assert [t.hospital for t in found] == sorted(t.hospital for t in found)
    assert {t.hospital for t in found} == {0, 1} and {t.label for t in found} == {0, 1}
    again = choose_targets(corpus, TWO, 8, seed=0)
    assert [t.row for t in again] == [t.row for t in found]


def test_candidates_are_other_groups_of_the_same_source_and_label(corpus: Corpus) -> None:
    for target in choose_targets(corpus, TWO, 4, seed=0):
        same = [c == corpus.train.cells[target.row] for c in corpus.train.cells]
        assert len(target.others) == sum(same) - 1
        assert not any(torch.equal(other[None], target.scan) for other in target.others)


def test_the_target_itself_is_named_and_a_flat_picture_names_nobody(target: Target) -> None:
    assert rank(target.scan, target) == 0
    assert rank(target.scan * 0.5 + 0.2, target) == 0  # brightness and contrast do not matter
    assert rank(torch.zeros_like(target.scan), target) == len(target.others)
    assert rank(target.others[:1], target) > 0


def test_a_comparison_tells_likeness(target: Target) -> None:
    same = compare(target.scan, target)
    assert same == {"psnr": 150.0, "ssim": 1.0, "ssim_head": 1.0, "rank": 0.0, "chance": 1 / 9}
    floors = compare_floors(target)
    assert list(floors) == ["mean scan", "nearest other", "black"]
    assert all(f["ssim"] < 1 and f["psnr"] < 30 and f["rank"] > 0 for f in floors.values())


def test_the_head_s_box_holds_its_brightness() -> None:
    scan = torch.zeros(1, 1, 40, 40)
    scan[0, 0, 5:30, 8:33] = 0.5
    assert find_head(scan) == (5, 30, 8, 33)
    assert find_head(torch.zeros(1, 1, 40, 40)) == (0, 40, 0, 40)
