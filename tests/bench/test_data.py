"""Folds: seeds are positions in the manifest, limits keep the order, foreign files are refused."""

import shutil

import pytest
import torch

from core.scan import read_scan
from train.data.corpus import load_fold
from train.data.errors import DataError


def test_seeds_are_positions_in_the_manifest(test_fold):
    assert list(test_fold.seeds) == test_fold.manifest.find_positions("test")
    assert all(
        test_fold.manifest.entries[seed] == entry
        for seed, entry in zip(test_fold.seeds, test_fold.entries, strict=True)
    )


def test_batches_hold_the_canonical_scans(test_fold, data):
    batches = list(test_fold.batches(3, torch.device("cpu")))
    assert [len(b.y) for b in batches] == [3, 3, 2]
    assert [s for b in batches for s in b.seeds] == list(test_fold.seeds)
    for row, entry in enumerate(test_fold.entries):
        batch, i = batches[row // 3], row % 3
        assert torch.equal(batch.x[i], read_scan(data[0] / entry.file))
        assert int(batch.y[i]) == int("yes" in entry.file)


def test_a_limit_takes_evenly_spaced_scans_of_both_classes(data, test_fold):
    few = load_fold("paper", "test", data[0], limit=4, cache=None, manifests=data[1])
    assert len(few) == 4
    assert few.entries[0] == test_fold.entries[0]
    assert few.entries[-1] == test_fold.entries[-1]
    assert set(few.labels.tolist()) == {0, 1}
    assert few.seeds == test_fold.thin(4).seeds
    with pytest.raises(ValueError, match="at least 1"):
        test_fold.thin(0)


def test_the_cache_gives_the_same_scans(data, test_fold, tmp_path):
    cached = load_fold("paper", "test", data[0], cache=tmp_path, manifests=data[1])
    assert (cached.scans == test_fold.scans).all()


def test_a_changed_file_is_refused(data, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data[0], root)
    victim = root / "br35h" / "yes" / "015.png"
    victim.write_bytes((root / "br35h" / "yes" / "013.png").read_bytes())
    with pytest.raises(DataError, match=r"1 of 8 files .* the first is br35h/yes/015\.png"):
        load_fold("paper", "test", root, cache=None, manifests=data[1])
