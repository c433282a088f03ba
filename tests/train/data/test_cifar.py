"""CIFAR-10 of either edition gives arrays, a title for the tables, and its own split."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.cifar import CLASSES, OFFICIAL_FOLDER, read_cifar
from train.data.corpus import load_corpus
from train.data.errors import DataError
from train.data.split import choose_fold


def picture(seed: int) -> np.ndarray:
    """Draw a picture (32, 32, 3) uint8, smooth, so that JPEG hardly changes it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write four training and two test pictures per class as JPEG files in `cifar10-jpeg`."""
    seed = 0
    for part, count in (("train", 4), ("test", 2)):
        for name in CLASSES:
            folder = tmp_path / "cifar10-jpeg" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(picture(seed)).save(folder / f"{index:04}.jpg", quality=95)
                seed += 1
    return tmp_path / "cifar10-jpeg"


@pytest.fixture
def archive(tree: Path) -> Path:
    path = tree.with_name("cifar10-jpeg.tar.gz")
    with tarfile.open(path, "w:gz") as file:
        for part in ("test", "train"):  # in any order
            file.add(tree / part, part)
    shutil.rmtree(tree)
    return path


def write_official(root: Path, monkeypatch) -> None:
    """Write files in the official format, ten pictures each, and set torchvision's checksums."""
    from torchvision.datasets import CIFAR10

    folder = root / OFFICIAL_FOLDER
    folder.mkdir()

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(start: int) -> dict:
        pictures = [picture(start + i).transpose(2, 0, 1).ravel() for i in range(10)]
        return {"data": np.stack(pictures), "labels": list(range(10))}

    lists = [write(f"data_batch_{i}", batch(10 * i)) for i in range(1, 6)]
    meta = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "train_list", lists)
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch(90))])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    )


def test_the_jpeg_tree_gives_arrays_and_says_that_it_is_jpeg(tree):
    cifar = read_cifar(tree.parent)
    assert cifar.title == "CIFAR-10 (JPEG)"
    assert cifar.train.shape == (40, 3, 32, 32) and cifar.train.dtype == np.uint8
    assert cifar.test.shape == (20, 3, 32, 32)
    assert cifar.train_labels.tolist() == [label for label in range(10) for _ in range(4)]
    assert cifar.test_labels.tolist() == [label for label in range(10) for _ in range(2)]
    error = cifar.train[5].astype(int) - picture(5).transpose(2, 0, 1)
    assert np.abs(error).mean() < 4


def test_the_folder_itself_may_be_the_tree(tree):
    assert len(read_cifar(tree).train) == 40


def test_the_archive_and_the_tree_are_the_same(tree, tmp_path):
    from_tree = read_cifar(tree.parent)
    path = tmp_path / "other" / "cifar10-jpeg.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        file.add(tree, ".")
    from_archive = read_cifar(path.parent)
    for name in ("train", "train_labels", "test", "test_labels"):
        assert np.array_equal(getattr(from_tree, name), getattr(from_archive, name))


def test_the_official_files_come_first_and_are_exact(tree, monkeypatch):
    write_official(tree.parent, monkeypatch)
    cifar = read_cifar(tree.parent, tree.parent / "cache")
    assert cifar.title == "CIFAR-10"
    assert cifar.train.shape == (50, 3, 32, 32) and cifar.test.shape == (10, 3, 32, 32)
    assert np.array_equal(cifar.train[3], picture(13).transpose(2, 0, 1))
    assert cifar.train_labels[:10].tolist() == list(range(10))


def test_a_damaged_official_file_is_reported(tmp_path, monkeypatch):
    write_official(tmp_path, monkeypatch)
    (tmp_path / OFFICIAL_FOLDER / "data_batch_3").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cifar-10-batches-py is incomplete or damaged"):
        read_cifar(tmp_path)


def test_the_cache_is_read_back_and_made_anew_when_a_file_changes(archive, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = read_cifar(tmp_path, cache)
    monkeypatch.setattr("train.data.cifar._decode_all", lambda path: pytest.fail("decoded again"))
    assert np.array_equal(read_cifar(tmp_path, cache).train, first.train)
    monkeypatch.undo()
    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"tar\.gz is incomplete or damaged"):
        read_cifar(tmp_path, cache)
    assert len(list(cache.iterdir())) == 1


def test_what_is_missing_is_named(tree):
    with pytest.raises(DataError, match=r"no CIFAR-10 under .*cifar-10-batches-py"):
        read_cifar(tree.parent / "nowhere")
    shutil.rmtree(tree / "test" / "frog")
    with pytest.raises(DataError, match="no pictures in test/frog"):
        read_cifar(tree.parent)


def test_a_picture_of_another_size_or_none_at_all_is_reported(tree):
    Image.new("RGB", (16, 16)).save(tree / "train" / "cat" / "0000.jpg")
    with pytest.raises(DataError, match=r"shape \(16, 16, 3\)"):
        read_cifar(tree.parent)
    (tree / "train" / "cat" / "0000.jpg").write_bytes(io.BytesIO(b"no picture").getvalue())
    with pytest.raises(DataError, match="incomplete or damaged"):
        read_cifar(tree.parent)


def test_the_corpus_sets_the_hash_rule_s_tenth_apart(tree):
    corpus = load_corpus("cifar10", tree.parent, None)
    assert corpus.protocol == "CIFAR-10 (JPEG)"
    assert len(corpus.train) + len(corpus.val) == 40  # the official test set stays out
    assert list(corpus.train.cells) == [f"cifar10/{v}" for v in corpus.train.labels.tolist()]
    assert len({*corpus.train.groups, *corpus.val.groups}) == 40
    for scans, fold in ((corpus.val.scans, {"val"}), (corpus.train.scans, {"train", "test"})):
        assert {choose_fold(hashlib.sha256(s.tobytes()).hexdigest()) for s in scans} <= fold
    assert corpus.shape == (3, 32, 32) and corpus.num_classes == 10
    assert load_corpus("cifar10", tree.parent, None).split_sha256 == corpus.split_sha256
    (tree / "train" / "cat" / "0000.jpg").unlink()
    assert load_corpus("cifar10", tree.parent, None).split_sha256 != corpus.split_sha256


@pytest.mark.slow
@pytest.mark.data
def test_the_real_archive_is_whole(data_root):
    cifar = read_cifar(data_root)
    assert cifar.train.shape == (50_000, 3, 32, 32) and cifar.test.shape == (10_000, 3, 32, 32)
    assert np.bincount(cifar.train_labels).tolist() == [5_000] * 10
    assert np.bincount(cifar.test_labels).tolist() == [1_000] * 10
