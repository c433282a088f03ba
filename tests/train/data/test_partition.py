"""Laws of the partitions: each scan once, near-duplicates together, reproducible."""

from __future__ import annotations

import hashlib
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
    HOSPITALS,
    PartitionConfig,
    Row,
    assign,
    list_rows,
    select_client_corpus,
)
from train.data.scanner_shift import ScannerConfig, shift
from train.data.source_tables import COLLECTION, IXI, TCGA
from train.data.sources import BR35H
from train.data.split import FOLDS, Manifest, read_manifest
from train.partition_figure import count_scans, draw, main

KINDS = ("iid", "dirichlet")  # of partitions that any protocol allows
SITE = PartitionConfig(kind="site")


@pytest.fixture(scope="module")
def patients() -> Manifest:
    return read_manifest("patients")


@pytest.fixture(scope="module")
def rows(patients) -> list[Row]:
    return list_rows(patients)


@pytest.fixture(scope="module")
def sites(patients) -> list[str]:
    """Return the hospital of each scan of 'patients'."""
    return [SITE.name_client(c) for c in assign(list_rows(patients), SITE)]


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


@pytest.mark.parametrize("protocol", ["patients", "paper"])
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


@pytest.mark.parametrize(
    ("protocol", "kind", "digest"),
    [
        ("patients", "site", "cc31fe2f681741e8"),
        ("patients", "iid", "45b5e95dfee5d602"),
        ("patients", "dirichlet", "6f614dff97115b73"),
        ("paper", "iid", "ffa888d5946cd14b"),
        ("paper", "dirichlet", "a751d8264b3f85bc"),
    ],
)
def test_hospitals_that_trained_keep_their_scans(protocol, kind, digest):
    clients = assign(list_rows(read_manifest(protocol)), PartitionConfig(kind=kind))
    assert hashlib.sha256(bytes(clients)).hexdigest().startswith(digest)


# --- by site -------------------------------------------------------------------------------------


def test_there_are_ten_hospitals_by_site():
    assert [SITE.name_client(c) for c in range(10)] == [
        "TCGA-DU",
        "TCGA-HT",
        "TCGA-CS",
        "TCGA-FG+EZ",
        "IXI",
        "brain-tumor-mri 1",
        "brain-tumor-mri 2",
        "brain-tumor-mri 3",
        "br35h 1",
        "br35h 2",
    ]
    assert PartitionConfig().name_client(3) == "client 3"


def test_no_patient_and_no_group_is_at_two_hospitals(patients, sites):
    holders: dict[object, set[str]] = {}
    for entry, site in zip(patients.entries, sites, strict=True):
        holders.setdefault(entry.group, set()).add(site)
        if entry.patient:
            holders.setdefault((entry.source, entry.patient), set()).add(site)
    assert len(holders) > 1400
    assert {len(found) for found in holders.values()} == {1}


def test_patients_whose_site_is_known_are_there(patients, sites):
    for entry, site in zip(patients.entries, sites, strict=True):
        if entry.source == TCGA:
            name = entry.patient.split("_")[0].replace("EZ", "FG").replace("FG", "FG+EZ")
            assert site == f"TCGA-{name}"
        elif entry.source == IXI:
            assert site == "IXI"


def test_every_hospital_trains_and_validates_on_both_classes(patients, sites):
    counts = Counter(
        (s, e.fold, e.record.label) for e, s in zip(patients.entries, sites, strict=True)
    )
    for site in HOSPITALS:
        for fold in FOLDS:
            assert min(counts[site, fold, 0], counts[site, fold, 1]) >= 6, (site, fold)
    assert [counts["TCGA-HT", "train", label] for label in (0, 1)] == [272 + 35, 371]
    assert counts["IXI", "train", 1] / counts["IXI", "train", 0] == pytest.approx(0.18, abs=0.03)


@pytest.mark.parametrize("source", [COLLECTION, BR35H])
def test_sources_without_sites_share_their_hospitals_evenly(patients, sites, source):
    """Each holds an equal share, and the one of IXI a quarter of that."""
    trained = Counter(
        s
        for e, s in zip(patients.entries, sites, strict=True)
        if e.fold == "train" and (s.startswith(source) or (s == "IXI" and e.source == source))
    )
    own = [trained[name] for name in HOSPITALS if name.startswith(source)]
    assert len(own) == {COLLECTION: 3, BR35H: 2}[source]
    assert max(own) - min(own) <= 3
    assert trained["IXI"] / own[0] == pytest.approx(0.25, abs=0.04)


def test_by_site_the_seed_decides_and_test_scans_do_not_matter(patients, sites):
    rows = list_rows(patients)
    known = [i for i, row in enumerate(rows) if row.fold in ("train", "val")]
    alone = assign([rows[i] for i in known], SITE)
    assert [SITE.name_client(c) for c in alone] == [sites[i] for i in known]
    other = assign(rows, replace(SITE, seed=1))
    moved = Counter(a for a, c in zip(sites, other, strict=True) if a != SITE.name_client(c))
    assert moved["brain-tumor-mri 1"] > 0 and moved["TCGA-DU"] == moved["TCGA-FG+EZ"] == 0


def test_at_a_hospital_the_sites_share_the_weight(patients, sites):
    """Fifteen near-duplicates that Br35H holds of a patient weigh as that patient's scans."""

    def fold(name: str) -> ScanDataset:
        entries = [e for e in patients.entries if e.fold == name]
        labels = [e.record.label for e in entries]
        cells = [f"{e.source}/{y}" for e, y in zip(entries, labels, strict=True)]
        scans = np.zeros((len(entries), 1, 1), dtype=np.uint8)
        groups = [e.group for e in entries]
        return ScanDataset(scans, torch.tensor(labels), cells, groups, entries=entries)

    corpus = Corpus(fold("train"), fold("val"), patients.sha256, "patients")
    names, parts = list(HOSPITALS), {}
    for client in (2, 4, 7):
        parts[names[client]] = select_client_corpus(corpus, SITE, client)
    assert set(parts["TCGA-CS"].train.cells) == {"tcga-lgg/CS/0", "tcga-lgg/CS/1"}
    assert "br35h" in {e.source for e in parts["TCGA-CS"].train.entries}
    assert set(parts["brain-tumor-mri 3"].train.cells) == {"brain-tumor-mri/0", "brain-tumor-mri/1"}
    assert set(parts["IXI"].train.cells) == {
        "ixi/0",
        *(f"{source}/{label}" for source in (BR35H, COLLECTION) for label in (0, 1)),
    }
    for name, part in parts.items():
        files = [
            e.file
            for e, s in zip(patients.entries, sites, strict=True)
            if s == name and e.fold == "train"
        ]
        assert sorted(e.file for e in part.train.entries) == files


def test_by_site_needs_ten_clients_and_the_sites():
    with pytest.raises(ValueError, match=r"has 10 hospitals: num_clients must be 10, got 3"):
        PartitionConfig(kind="site", num_clients=3)
    with pytest.raises(
        DataError, match=r"needs scans of tcga-lgg/DU, .* found br35h: add them, or .* sites\+iid$"
    ):
        assign(list_rows(read_manifest("paper")), SITE)
    with pytest.raises(DataError, match=r"as protocol 'patients' has them, found none"):
        assign(list_rows(small_corpus()), SITE)


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
    four, ten = PartitionConfig(num_clients=4), PartitionConfig()
    short = draw(rows, assign(rows, four), four, "four")
    long = draw(rows, assign(rows, ten), ten, "ten")
    assert long.height > short.height
    assert len(long.convert("P", palette=Image.Palette.ADAPTIVE).getcolors() or []) > 4


def test_the_command_writes_picture_and_table(tmp_path, capsys):
    assert main(["--preset", "sites+iid", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "partition-patients-iid.png").stat().st_size > 2000
    assert capsys.readouterr().out.count("client ") == 10


def test_table_and_picture_name_the_hospitals(tmp_path, capsys, patients):
    words = ["--protocol", "patients", "--kind", "site", "--out", str(tmp_path)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(HOSPITALS)
    assert "train/tcga-lgg/1 651" in lines[0]
    with Image.open(tmp_path / "partition-patients-site.png") as picture:
        named = picture.convert("L").crop((0, 90, picture.width, picture.height))
    rows, config = list_rows(patients), PartitionConfig()
    numbered = draw(rows, assign(rows, config), config, "ten").convert("L")
    assert named.width > numbered.width  # room for longer names


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MEDFEDPURE_DATA", raising=False)
    assert main(["--protocol", "paper", "--out", str(tmp_path)]) == 2
    assert "a partition by site needs scans of" in capsys.readouterr().err
    assert main(["--protocol", "cifar10", "--out", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err
