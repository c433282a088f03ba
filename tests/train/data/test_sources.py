"""Sources list and decode their files, and name missing ones."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter

import numpy as np
import pytest

from core.scan import from_uint8, read_scan
from train.data import sources
from train.data.errors import DataError
from train.data.source_tables import COLLECTION
from train.data.sources import (
    BR35H,
    check_sources,
    find_class_records,
    find_data_root,
    find_records,
    hash_files,
    load_scans,
)

BOTH = (BR35H, COLLECTION)


def test_records_are_sorted_labelled_and_keep_their_subtype(brain_folder):
    records = find_records(brain_folder(2), BOTH)
    assert [r.file for r in records] == sorted(r.file for r in records)
    assert Counter((r.source, r.subtype, r.label) for r in records) == {
        (BR35H, "tumour", 1): 2,
        (BR35H, "no tumour", 0): 2,
        (COLLECTION, "glioma", 1): 2,
        (COLLECTION, "meningioma", 1): 2,
        (COLLECTION, "pituitary", 1): 2,
        (COLLECTION, "no tumour", 0): 2,
    }


def test_one_source_alone(brain_folder):
    records = find_records(brain_folder(1), [BR35H])
    assert {r.source for r in records} == {BR35H}


def test_other_files_and_unlabelled_folders_are_no_records(brain_folder):
    root = brain_folder(1)
    (root / BR35H / "yes" / "Thumbs.db").write_text("x")
    (root / BR35H / "pred").mkdir()
    shutil.copy(root / BR35H / "yes" / "0.png", root / BR35H / "pred")
    assert len(find_records(root, [BR35H])) == 2


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no data folder at .*nowhere"):
        find_records(tmp_path / "nowhere", BOTH)
    with pytest.raises(DataError, match=r"no data folder at .*nowhere"):
        find_class_records(tmp_path / "nowhere")


def test_an_empty_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*br35h"):
        find_records(tmp_path, BOTH)


def test_a_lacking_class_is_named(brain_folder):
    root = brain_folder(1)
    shutil.rmtree(root / COLLECTION / "glioma")
    with pytest.raises(DataError, match=r"no folder .*glioma"):
        find_records(root, BOTH)


def test_an_empty_class_is_named(brain_folder):
    root = brain_folder(1)
    (root / BR35H / "no" / "0.png").unlink()
    with pytest.raises(DataError, match=r"no pictures in .*no"):
        find_records(root, BOTH)


def test_an_unknown_source_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"unknown source 'brats': choose from br35h"):
        find_records(tmp_path, ["brats"])


def test_sources_that_a_purpose_lacks_are_named_beside_those_that_it_needs(brain_folder):
    root = brain_folder(1)
    check_sources(root, [BR35H, COLLECTION], "split")
    with pytest.raises(
        DataError, match=r"split needs the sources br35h, ixi, but .* has no ixi: add what"
    ):
        check_sources(root, [BR35H, "ixi"], "split")
    with pytest.raises(DataError, match="no data folder at"):
        check_sources(root / "nowhere", [BR35H], "split")


def test_any_image_folder(brain_folder):
    records = find_class_records(brain_folder(3) / COLLECTION)
    assert [(r.file, r.label) for r in records][:4] == [
        ("glioma/0.png", 0),
        ("glioma/1.png", 0),
        ("glioma/2.png", 0),
        ("meningioma/0.png", 1),
    ]
    assert {r.subtype for r in records} == {"glioma", "meningioma", "notumor", "pituitary"}


def test_an_image_folder_needs_two_classes(tmp_path):
    (tmp_path / "only").mkdir()
    with pytest.raises(DataError, match="at least two classes, found 1"):
        find_class_records(tmp_path)


def test_scans_are_the_canonical_ones(brain_folder):
    root = brain_folder(1)
    records = find_records(root, BOTH)
    scans = load_scans(root, records)
    assert scans.shape == (6, 224, 224)
    assert scans.dtype == np.uint8
    for scan, record in zip(scans, records, strict=True):
        assert np.array_equal(from_uint8(scan[None]).numpy(), read_scan(root / record.file).numpy())


def test_the_cache_is_used_and_a_changed_folder_decoded_anew(brain_folder, tmp_path, monkeypatch):
    root, cache = brain_folder(1), tmp_path / "cache"
    records = find_records(root, BOTH)
    first = load_scans(root, records, cache)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "_decode_all", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(load_scans(root, records, cache), first)
    shutil.copy(root / records[1].file, root / records[0].file)
    changed = load_scans(root, records, cache)
    assert np.array_equal(changed[0], first[1])


def test_a_full_disk_leaves_no_half_cache(brain_folder, tmp_path, monkeypatch):
    root, cache = brain_folder(1), tmp_path / "cache"

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(sources.np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        load_scans(root, find_records(root, BOTH), cache)
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_several_processes_decode_in_order(brain_folder, monkeypatch):
    root = brain_folder(1)
    records = find_records(root, BOTH)
    alone = load_scans(root, records)
    monkeypatch.setattr(sources, "MIN_PARALLEL_FILES", 1)
    assert np.array_equal(load_scans(root, records), alone)


def test_a_damaged_picture_is_named(brain_folder):
    root = brain_folder(1)
    records = find_records(root, BOTH)
    (root / records[2].file).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=f"{records[2].file}: The file is not a picture"):
        load_scans(root, records)


def test_a_missing_picture_is_named(brain_folder, tmp_path):
    root = brain_folder(1)
    records = find_records(root, BOTH)
    (root / records[2].file).unlink()
    with pytest.raises(DataError, match=f"1 files are missing .* {records[2].file}"):
        load_scans(root, records, tmp_path / "cache")
    with pytest.raises(DataError, match=f"{records[2].file}: There is no such file"):
        load_scans(root, records)


def test_no_records(tmp_path):
    with pytest.raises(DataError, match="no records"):
        load_scans(tmp_path, [])


def test_file_sha256(brain_folder):
    root = brain_folder(1)
    records = find_records(root, BOTH)
    content = (root / records[0].file).read_bytes()
    assert hash_files(root, records)[0] == hashlib.sha256(content).hexdigest()


def test_the_environment_names_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDFEDPURE_DATA", raising=False)
    assert find_data_root() is None
    monkeypatch.setenv("MEDFEDPURE_DATA", str(tmp_path))
    assert find_data_root() == tmp_path


@pytest.mark.data
def test_the_real_collection_is_complete(data_root):
    records = find_records(data_root, BOTH)
    assert Counter((r.source, r.subtype) for r in records) == {
        (BR35H, "tumour"): 1500,
        (BR35H, "no tumour"): 1500,
        (COLLECTION, "glioma"): 1304,
        (COLLECTION, "meningioma"): 1324,
        (COLLECTION, "pituitary"): 1422,
        (COLLECTION, "no tumour"): 1762,
    }
