"""Protocols that leave a source out, and trainings on some sources of a protocol."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from core import checkpoint
from train.__main__ import PROTOCOL_HELP, main
from train.data import corpus, split
from train.data.corpus import load_corpus, load_fold
from train.data.errors import DataError
from train.data.source_tables import COLLECTION, IXI, TCGA
from train.data.sources import ALL_SOURCES, BR35H, find_records
from train.data.split import (
    ASIDE,
    LEFT_OUT,
    PATIENTS,
    PROTOCOLS,
    find_test_parts,
    keep_sources,
    leave_out,
    read_manifest,
    read_pairs,
)


@pytest.fixture(scope="module")
def patients():
    return read_manifest(PATIENTS)


def test_help_explains_every_protocol(capsys):
    assert set(PROTOCOL_HELP) == set(corpus.PROTOCOLS)
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in corpus.PROTOCOLS)


# --- a source left out ---------------------------------------------------------------------------


def test_three_sources_are_left_out_each():
    assert LEFT_OUT == {
        "without-br35h": BR35H,
        "without-brain-tumor-mri": COLLECTION,
        "without-tcga-lgg": TCGA,
    }
    assert all(PROTOCOLS[name] == ALL_SOURCES for name in LEFT_OUT)


@pytest.mark.parametrize("protocol", LEFT_OUT)
def test_a_source_left_out_is_tested_as_a_whole_and_taught_nowhere(patients, protocol):
    without, source = read_manifest(protocol), LEFT_OUT[protocol]
    assert without.protocol == protocol
    assert without.sha256 != patients.sha256
    learned = {e.group for e in without.entries if e.fold in ("train", "val")}
    for old, new in zip(patients.entries, without.entries, strict=True):
        assert (old.file, old.group, old.record) == (new.file, new.group, new.record)
        if old.source == source:
            assert new.fold == "test" and new.group not in learned
        elif old.fold == "test":
            assert new.fold == ASIDE
        else:
            assert new.fold in (old.fold, ASIDE)
    assert {e.source for e in without.entries if e.fold == "val"} == set(ALL_SOURCES) - {source}


@pytest.mark.parametrize("protocol", LEFT_OUT)
def test_near_duplicates_of_a_source_left_out_are_taught_nowhere(protocol):
    folds = {e.file: e.fold for e in read_manifest(protocol).entries}
    pairs = read_pairs()
    assert len(pairs) == 271
    assert all({folds[a], folds[b]} <= {"test", ASIDE} or "test" not in (folds[a], folds[b])
               for a, b in pairs)  # fmt: skip


def test_only_pairs_with_the_source_put_a_scan_aside(patients):
    learned = [e for e in patients.entries if e.fold == "train"]
    out = next(e for e in learned if e.source == BR35H)
    near, other, far = [e for e in learned if e.source == TCGA][:3]
    pairs = [(out.file, near.file), (other.file, far.file)]
    folds = {e.file: e.fold for e in leave_out(patients, BR35H, pairs).entries}
    assert (folds[near.file], folds[other.file], folds[far.file]) == (ASIDE, "train", "train")


@pytest.mark.parametrize("protocol", LEFT_OUT)
def test_few_scans_of_the_other_sources_are_lost(patients, protocol):
    """Scans of the units that hold a scan of the source: near-duplicates of it."""
    source = LEFT_OUT[protocol]
    before = [e for e in patients.entries if e.source != source and e.fold == "train"]
    after = [e for e in read_manifest(protocol).entries if e.fold == "train"]
    assert 0.8 * len(before) < len(after) <= len(before)


@pytest.mark.parametrize("protocol", LEFT_OUT)
def test_the_two_test_parts_are_those_of_patients_and_the_rest(patients, protocol):
    without, source = read_manifest(protocol), LEFT_OUT[protocol]
    parts = find_test_parts(without.entries)
    theirs = [i for i, e in enumerate(patients.entries) if e.source == source]
    assert parts["test fold"] == [i for i in theirs if patients.entries[i].fold == "test"]
    assert parts["rest"] == [i for i in theirs if patients.entries[i].fold != "test"]
    assert sorted([*parts["test fold"], *parts["rest"]]) == without.find_positions("test")
    assert find_test_parts(patients.entries) == {"test fold": [], "rest": []}


def test_a_fold_of_a_source_left_out_loads_in_two_parts(four_sources, manifests):
    places = {"cache": None, "manifests": manifests}
    fold = load_fold("without-brain-tumor-mri", "test", four_sources, **places)
    parts = find_test_parts(fold.entries)
    assert len(fold) == 8 and set(fold.sources) == {COLLECTION}
    tested = fold.pick(parts["test fold"])
    assert [e.file for e in tested.entries] == ["brain-tumor-mri/pituitary/1.png"]
    assert len(fold.pick(parts["rest"])) == 7
    learned = load_corpus("without-brain-tumor-mri", four_sources, None, manifests)
    assert set(learned.train.sources) == set(ALL_SOURCES) - {COLLECTION}


# --- fewer sources -------------------------------------------------------------------------------


def test_some_sources_of_a_protocol_are_a_split_of_their_own(patients):
    some = keep_sources(patients, [TCGA, BR35H])
    assert some.protocol == "patients of br35h, tcga-lgg"
    assert some.entries == tuple(e for e in patients.entries if e.source in (BR35H, TCGA))
    assert some.sha256 not in (patients.sha256, keep_sources(patients, [BR35H]).sha256)
    assert keep_sources(patients, ALL_SOURCES) is patients


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["brats"], "^protocol 'patients' has no source 'brats': choose from br35h, .*, ixi$"),
        (["ixi"], "^of protocol 'patients' the training scans of ixi are of one class alone: add"),
    ],
)
def test_sources_that_cannot_train_are_refused(patients, sources, message):
    with pytest.raises(DataError, match=message):
        keep_sources(patients, sources)


def test_a_corpus_of_fewer_sources_holds_them_alone(four_sources, manifests, tmp_path):
    every = load_corpus(PATIENTS, four_sources, tmp_path / "cache", manifests)
    shutil.rmtree(four_sources / BR35H)
    some = load_corpus(
        PATIENTS, four_sources, tmp_path / "cache", manifests, ["ixi", TCGA], with_masks=True
    )
    assert set(some.train.sources) == {TCGA, "ixi"}
    assert (len(some.train), len(some.val)) == (3, 3)
    assert some.train.masks.any(axis=(1, 2)).sum() == 1
    assert some.protocol == "patients of tcga-lgg, ixi"
    assert some.split_sha256 != every.split_sha256
    again = load_corpus(PATIENTS, four_sources, None, manifests, [TCGA, "ixi"])
    assert again.split_sha256 == some.split_sha256


@pytest.mark.parametrize("cache", [None, "cache"])
def test_a_folder_that_lacks_a_source_names_it_and_the_option(
    four_sources, manifests, tmp_path, cache
):
    shutil.rmtree(four_sources / "ixi")
    with pytest.raises(DataError) as error:
        load_corpus(PATIENTS, four_sources, cache and tmp_path / cache, manifests)
    assert str(error.value) == (
        f"protocol 'patients' needs the sources br35h, brain-tumor-mri, tcga-lgg, ixi, but "
        f"{four_sources} has no ixi: add what is missing, or train on fewer, pooled, with "
        "--sources br35h,brain-tumor-mri,tcga-lgg"
    )


def test_other_protocols_have_no_sources_to_choose_from(four_sources):
    with pytest.raises(DataError, match="'folder' has no sources to choose from: leave --sources"):
        load_corpus("folder", four_sources / BR35H, None, sources=[BR35H])


# --- the command ---------------------------------------------------------------------------------


def test_a_training_on_fewer_sources_says_so(
    four_sources, manifests, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(split, "MANIFESTS", manifests)
    out = tmp_path / "out"
    words = ["plain", "--preset", "smoke", "--protocol", PATIENTS, "--sources", "tcga-lgg, ixi"]
    places = ["--data", four_sources, "--cache", tmp_path / "cache", "--out", out]
    assert main([*words, *map(str, places)]) == 0
    assert "sources: ixi, tcga-lgg alone, as 'patients of tcga-lgg, ixi'" in capsys.readouterr().err
    first = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    expected = keep_sources(read_manifest(PATIENTS, manifests), [TCGA, "ixi"])
    assert first["phase"] == "sources" and first["sources"] == ["ixi", "tcga-lgg"]
    assert first["protocol"] == expected.protocol
    assert first["split_sha256"] == expected.sha256
    assert checkpoint.load(out / "plain.safetensors").split_sha256 == expected.sha256


def test_the_command_names_a_missing_source(four_sources, manifests, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(split, "MANIFESTS", manifests)
    shutil.rmtree(four_sources / TCGA)
    places = ["--data", str(four_sources), "--cache", str(tmp_path), "--out", str(tmp_path)]
    assert main(["plain", "--preset", "smoke", "--protocol", PATIENTS, *places]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: protocol .* has no tcga-lgg: .* --sources br35h,\S+,ixi\n", error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"the table of source 'ixi' has no line for ixi/IXI2_axial_040"),
        (
            lambda lines: [*lines[:-1], lines[-1][:-1] + "1"],
            "'ixi' labels ixi/IXI2_axial_040.png ot",
        ),
    ],
)
def test_a_table_unlike_the_manifest_trains_nothing(
    four_sources, manifests, tmp_path, monkeypatch, capsys, change, message
):
    monkeypatch.setattr(split, "MANIFESTS", manifests)
    table = four_sources / f"{IXI}.csv"
    table.write_text("\n".join(change(table.read_text().splitlines())) + "\n")
    places = ["--data", str(four_sources), "--cache", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main(["plain", "--preset", "smoke", "--protocol", PATIENTS, *places]) == 2
    assert re.match(f"error: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


@pytest.mark.data
def test_the_real_folders_are_those_of_the_manifest(data_root, patients):
    files = [r.file for r in find_records(data_root, ALL_SOURCES)]
    assert files == [e.file for e in patients.entries]
