"""Laws of the partitions: each scan once, near-duplicates together, reproducible."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from train.data.corpus import Corpus
from train.data.dataset import ScanDataset, compute_weights
from train.data.errors import DataError
from train.data.partition import (
    KINDS,
    PartitionConfig,
    Row,
    assign,
    list_rows,
    select_client_corpus,
)
from train.data.scanner_shift import ScannerConfig, shift
from train.data.split import FOLDS, read_manifest
from train.partition_figure import count_scans, draw, main


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list_rows(read_manifest("multi-source"))


def small_corpus(count: int = 240) -> Corpus:
    """Build a corpus of noise from two sources in groups of three, a tenth for validation."""
    levels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)

    def fold(keep: list[int]) -> ScanDataset:
        labels = [i // 3 % 2 for i in keep]
        cells = [f"{'ab'[i // 6 % 2]}/{y}" for i, y in zip(keep, labels, strict=True)]
        return ScanDataset(levels[keep], torch.tensor(labels), cells, [i // 3 for i in keep])

    is_val = [i // 12 % 5 == 0 for i in range(count)]
    train = [i for i in range(count) if not is_val[i]]
    val = [i for i in range(count) if is_val[i]]
    return Corpus(fold(train), fold(val), "0" * 64, "small")


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_can_train_validate_and_test_whatever_the_kind(rows, kind):
    config = PartitionConfig(kind=kind)
    clients = assign(rows, config)
    assert len(clients) == len(rows) and set(clients) == set(range(10))
    for mine in count_scans(rows, clients).values():
        folds = Counter(fold for fold, _, _ in mine.elements())
        assert folds["train"] >= 20 and folds["val"] >= 1 and folds["test"] >= 1
        assert {label for fold, _, label in mine if fold == "train"} == {0, 1}


@pytest.mark.parametrize("protocol", ["multi-source", "leak-free", "paper"])
@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_near_duplicates_never_straddle_clients(protocol, kind):
    rows = list_rows(read_manifest(protocol))
    holders: dict[int, set[int]] = {}
    for row, client in zip(rows, assign(rows, PartitionConfig(kind=kind)), strict=True):
        holders.setdefault(row.group, set()).add(client)
    assert max(len(found) for found in holders.values()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(rows, kind):
    config = PartitionConfig(kind=kind)
    assert assign(rows, config) == assign(list(rows), config)
    assert assign(rows, config) != assign(rows, replace(config, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_test_scans_do_not_affect_the_clients_training_scans(rows, kind):
    known = [i for i, row in enumerate(rows) if row.fold != "test"]
    every = assign(rows, PartitionConfig(kind=kind))
    assert [every[i] for i in known] == assign([rows[i] for i in known], PartitionConfig(kind=kind))


def test_iid_gives_the_same_mix_to_everyone(rows):
    found = count_scans(rows, assign(rows, PartitionConfig()))
    for fold in FOLDS:
        sizes = [sum(n for (f, _, _), n in mine.items() if f == fold) for mine in found.values()]
        assert max(sizes) - min(sizes) <= 0.4 * max(sizes)  # whole groups, and a few of them large
    shares = [
        sum(n for (f, _, y), n in mine.items() if (f, y) == ("train", 1)) / 620
        for mine in found.values()
    ]
    assert max(shares) - min(shares) < 0.06


def test_a_low_concentration_makes_clients_differ(rows):
    def spread(concentration: float) -> float:
        config = PartitionConfig(kind="dirichlet", concentration=concentration)
        shares = []
        for mine in count_scans(rows, assign(rows, config)).values():
            labels = Counter(label for fold, _, label in mine.elements() if fold == "train")
            shares.append(labels[1] / labels.total())
        return float(np.std(shares))

    assert spread(0.5) > 2 * spread(100.0)


def test_by_source_every_hospital_has_its_own_and_sizes_share_the_hospitals(rows):
    found = count_scans(rows, assign(rows, PartitionConfig(kind="source")))
    main_sources = []
    for mine in found.values():
        sources = Counter(source for _, source, _ in mine.elements())
        (name, most), total = sources.most_common(1)[0], sources.total()
        assert most / total > 0.8  # the rest: near-duplicates of its own that the other holds too
        main_sources.append(name)
    assert Counter(main_sources) == {"br35h": 3, "brain-tumor-mri": 7}


def test_the_parts_of_a_corpus_are_the_corpus():
    corpus, config = small_corpus(), PartitionConfig(num_clients=4, min_scans=5)
    parts = [select_client_corpus(corpus, config, client) for client in range(4)]
    for fold in ("train", "val"):
        whole = getattr(corpus, fold).scans.reshape(-1, 64)
        pieces = np.concatenate([getattr(p, fold).scans.reshape(-1, 64) for p in parts])
        assert sorted(map(bytes, whole)) == sorted(map(bytes, pieces))
    for part in parts:
        data = part.train
        assert len(data) == len(data.cells) == len(data.groups) >= 5
        assert torch.equal(data.weights, compute_weights(data.cells, data.groups))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clients": 60}, r"client \d+ has \d+ training scans of the 20 that min_scans asks"),
        (
            {"kind": "dirichlet", "concentration": 1e-3, "min_scans": 1},
            r"client \d+ has .*scans of",
        ),
        ({"num_clients": 1, "kind": "source"}, r"needs 2 to 1 sources .* found a, b"),
    ],
)
def test_a_partition_that_nobody_could_train_on_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        assign(list_rows(small_corpus()), PartitionConfig(**changes))


def test_a_client_of_one_class_is_named():
    rows = [Row("train", "a", int(i < 3), i) for i in range(80)]
    with pytest.raises(DataError, match=r"client \d has training scans of class 0 alone"):
        assign(rows, PartitionConfig(num_clients=4, min_scans=2))


@pytest.mark.parametrize(
    "changes",
    [{"kind": "other"}, {"num_clients": 0}, {"concentration": 0.0}, {"min_scans": 0}],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        PartitionConfig(**changes)
    with pytest.raises(ValueError, match=r"client must be in \[0, 9\]"):
        select_client_corpus(small_corpus(), PartitionConfig(), 10)


# --- scanner shift -------------------------------------------------------------------------------

SHIFT = ScannerConfig(gamma=0.3, bias=0.3, noise=0.05)


def test_no_shift_is_the_identity():
    scans = small_corpus().train.scans
    assert shift(scans, ScannerConfig(), 0, 0, range(len(scans))) is scans


def test_a_scan_looks_the_same_whichever_scans_come_along():
    scans = small_corpus().train.scans
    names = range(100, 100 + len(scans))
    every = shift(scans, SHIFT, 0, 2, names)
    assert every.dtype == np.uint8 and not np.array_equal(every, scans)
    assert np.array_equal(every[[7, 3]], shift(scans[[7, 3]], SHIFT, 0, 2, [107, 103]))
    assert not np.array_equal(every, shift(scans, SHIFT, 0, 3, names))


def test_without_noise_black_stays_black_and_order_is_kept():
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (32, 6, 6))
    seen = shift(ramp, ScannerConfig(gamma=0.5), 0, 1, range(32))
    assert (seen[0] == 0).all() and (seen[-1] == 248).mean() < 1
    assert (np.diff(seen.astype(int), axis=0) >= 0).all()


def test_colour_pictures_shift_too():
    scans = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    assert shift(scans, SHIFT, 0, 0, range(4)).shape == scans.shape


@pytest.mark.parametrize("changes", [{"gamma": -1.0}, {"bias": 1.0}, {"noise": -0.1}])
def test_a_scanner_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ScannerConfig(**changes)


# --- the picture ---------------------------------------------------------------------------------


def test_the_picture_has_a_bar_for_every_client(rows):
    short = draw(rows, assign(rows, PartitionConfig(num_clients=4)), "four")
    long = draw(rows, assign(rows, PartitionConfig()), "ten")
    assert long.height > short.height
    assert len(long.convert("P", palette=Image.Palette.ADAPTIVE).getcolors() or []) > 4


def test_the_command_writes_picture_and_table(tmp_path, capsys):
    assert main(["--protocol", "leak-free", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "partition-leak-free-iid.png").stat().st_size > 2000
    assert capsys.readouterr().out.count("client ") == 10


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MEDFEDPURE_DATA", raising=False)
    assert main(["--protocol", "leak-free", "--kind", "source", "--out", str(tmp_path)]) == 2
    assert "needs 2 to 10 sources" in capsys.readouterr().err
    assert main(["--protocol", "cifar10", "--out", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err
