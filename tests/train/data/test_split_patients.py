"""No patient is in two folds, and no near-duplicate of a known other unit."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from core.scan import to_uint8
from demo.phantom import draw_phantom
from train.__main__ import main
from train.data import split, split_patients
from train.data.errors import DataError
from train.data.source_tables import COLLECTION, IXI, TCGA
from train.data.sources import (
    ALL_SOURCES,
    BR35H,
    TABLE_SOURCES,
    Record,
    find_records,
    hash_files,
    load_scans,
)
from train.data.split import (
    ASIDE,
    FOLDS,
    LEFT_OUT,
    PATIENTS,
    Manifest,
    check_files,
    read_manifest,
    read_pairs,
)
from train.data.split_patients import (
    build_patients,
    find_crossing,
    find_duplicates,
    find_site,
)

COMMITTED = "7acd4c685a5d50c5d05029cf804ca0b207fc1f299b13dcbba824263bd5799e63"


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    """Draw twelve different heads, uint8 (12, 224, 224)."""
    return np.concatenate(
        [to_uint8(draw_phantom(seed, tumour=seed % 2 == 1)) for seed in range(12)]
    )


def record(name: str, source: str = BR35H, label: int = 1, patient: str = "") -> Record:
    return Record(f"{source}/{name}", source, label, "glioma" if label else "no tumour", patient)


def build(records: list[Record], scans: np.ndarray) -> Manifest:
    digests = [hashlib.sha256(r.file.encode()).hexdigest() for r in records]
    return build_patients(records, digests, find_duplicates(records, scans))


def units_of(records: list[Record], scans: np.ndarray) -> list[int]:
    return [entry.group for entry in build(records, scans).entries]


# --- the rule ------------------------------------------------------------------------------------


def test_a_patient_is_one_unit_and_a_group_another(heads):
    records = [
        record("a", COLLECTION, patient="P1"),
        record("b", COLLECTION, patient="P1"),
        record("c", COLLECTION, patient="P2"),
        record("d"),
        record("e"),
        record("f"),
    ]
    copies = heads[[0, 1, 2, 3, 3, 4]]
    copies[4] = copies[4][:, ::-1]  # a mirror image is a near-duplicate
    assert units_of(records, copies) == [0, 0, 1, 2, 2, 3]


def test_near_duplicates_of_two_patients_stay_two_units(heads):
    records = [record(n, COLLECTION, patient=p) for n, p in (("a", "P1"), ("b", "P2"))]
    assert units_of(records, heads[[0, 0]]) == [0, 1]


def test_the_same_name_in_two_sources_is_two_patients(heads):
    records = [record("a", COLLECTION, patient="P1"), record("b", TCGA, patient="P1")]
    assert units_of(records, heads[[0, 1]]) == [0, 1]


def test_unknown_scans_join_the_patient_who_has_most_of_their_duplicates(heads):
    records = [
        record("a", COLLECTION, patient="P1"),
        record("b", COLLECTION, patient="P2"),
        record("c", COLLECTION, patient="P2"),
        record("d"),
        record("e"),
    ]
    # d is a copy of all three of the patients' scans; e of d
    units = units_of(records, heads[[0, 0, 0, 0, 0]])
    assert units == [0, 1, 1, 1, 1]


def test_different_labels_do_not_join(heads):
    records = [record("a"), record("b", label=0), record("c", COLLECTION, 0, "P1")]
    assert units_of(records, heads[[0, 0, 0]]) == [0, 1, 1]


def test_alike_heads_of_the_sources_of_patients_are_no_duplicates(heads):
    records = [
        record("a", IXI, 0, "P1"),
        record("b", TCGA, 0, "P2"),
        record("c", COLLECTION, 0),
    ]
    assert find_duplicates(records, heads[[0, 0, 0]]) == [(0, 2), (1, 2)]


def test_a_duplicate_in_a_lower_fold_is_put_aside(heads, monkeypatch):
    folds = {"P1": "test", "P2": "val", "P3": "train", "P4": "train"}
    records = [record(p, COLLECTION, patient=p) for p in folds]
    deal = {f"{COLLECTION}/{p}": fold for p, fold in folds.items()}
    monkeypatch.setattr(split_patients, "_deal", lambda *_: deal)

    def folds_of(rows: list[int]) -> list[str]:
        return [e.fold for e in build(records, heads[rows]).entries]

    assert folds_of([0, 1, 2, 3]) == ["test", "val", "train", "train"]
    assert folds_of([0, 1, 0, 2]) == ["test", "val", ASIDE, "train"]
    assert folds_of([0, 1, 2, 1]) == ["test", "val", "train", ASIDE]
    assert folds_of([0, 0, 1, 2]) == ["test", ASIDE, "train", "train"]
    assert folds_of([0, 1, 2, 2]) == ["test", "val", "train", "train"]


def test_each_stratum_deals_a_fifth_and_a_tenth(heads):
    """Units of one scan each, all different: 20 of one kind of a site give 4 / 2 / 14."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 24, 24), dtype=np.uint8)
    scans = np.kron(noise, np.ones((1, 8, 8), dtype=np.uint8))
    kinds = [(BR35H, 1), (BR35H, 0), (COLLECTION, 1)]
    records = [record(f"{i:02}", *kinds[i // 20]) for i in range(60)]
    manifest = build(records, scans)
    assert manifest.protocol == PATIENTS
    assert manifest.count_scans() == {
        (fold, *kind): n for kind in kinds for fold, n in zip(FOLDS, (14, 2, 4), strict=True)
    }


def test_a_patient_with_and_without_tumour_is_dealt_among_those_with():
    records = [
        record("a", TCGA, 0, "CS_1"),
        record("b", TCGA, 1, "CS_1"),
        record("c", TCGA, 0, "CS_2"),
    ]
    units = ["one", "one", "two"]
    assert split_patients._find_strata(records, units) == {
        ("tcga-lgg/CS", "glioma"): ["one"],
        ("tcga-lgg/CS", "no tumour"): ["two"],
    }


@pytest.mark.parametrize(
    ("source", "patient", "site"),
    [
        (TCGA, "DU_5849", "tcga-lgg/DU"),
        (TCGA, "FG_1", "tcga-lgg/FG"),
        (TCGA, "EZ_7264", "tcga-lgg/FG"),
        (IXI, "IXI013", "ixi"),
        (COLLECTION, "MR1", "brain-tumor-mri"),
        (BR35H, "", "br35h"),
    ],
)
def test_the_site_follows_from_source_and_patient(source, patient, site):
    assert find_site(record("a", source, patient=patient)) == site


def test_equal_files_give_equal_folds_in_any_company(heads):
    """A stratum's folds depend on its own units alone."""
    records = [record(f"{i:02}") for i in range(10)]
    more = [*records, record("x", TCGA, 0, "CS_1"), record("y", IXI, 0, "IXI1")]
    alone, together = build(records, heads[:10]), build(more, heads)
    assert [e.fold for e in together.entries[:10]] == [e.fold for e in alone.entries]


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_the_manifests_of_all_protocols(four_sources, tmp_path, monkeypatch):
    monkeypatch.setattr(split, "MANIFESTS", tmp_path / "manifests")
    assert main(["split", "--data", str(four_sources), "--cache", str(tmp_path / "cache")]) == 0
    files = {p.name for p in (tmp_path / "manifests").iterdir()}
    assert split.PAIRS in files and read_pairs() == []  # no two units look alike
    written = {
        name: read_manifest(name)
        for name in (f.removesuffix(".csv") for f in files - {split.PAIRS})
    }
    assert {name: len(m.entries) for name, m in written.items()} == {
        "paper": 4,
        "patients": 19,
    }
    patients = {e.patient for e in written["patients"].entries}
    assert patients == {"", "MR1", "100", "CS_1", "DU_2", "IXI1", "IXI2"}


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("ixi", "split needs the sources br35h, brain-tumor-mri, tcga-lgg, ixi, but .* has no ixi"),
        ("ixi.csv", "no table .*ixi.csv, which source 'ixi' needs"),
        ("brain-tumor-mri.csv", "no table .*brain-tumor-mri.csv, which source 'brain-tumor-mri'"),
    ],
)
def test_the_command_names_what_is_missing(four_sources, tmp_path, capsys, lacking, message):
    (four_sources / lacking).rename(tmp_path / "elsewhere")
    assert main(["split", "--data", str(four_sources), "--cache", str(tmp_path / "cache")]) == 2
    assert re.fullmatch(f"error: .*{message}.*\n", capsys.readouterr().err)


# --- the committed manifest ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(PATIENTS)


def test_the_committed_split_is_the_one_that_trainings_name(manifest):
    assert manifest.sha256 == COMMITTED


def test_no_patient_and_no_unit_is_in_two_folds(manifest):
    patients, groups = defaultdict(set), defaultdict(set)
    for e in manifest.entries:
        if e.fold != ASIDE:
            groups[e.group].add(e.fold)
            if e.patient:
                patients[e.source, e.patient].add(e.fold)
    assert len(patients) > 400
    assert {len(folds) for folds in patients.values()} == {1}
    assert {len(folds) for folds in groups.values()} == {1}


def test_each_source_and_kind_has_near_a_fifth_and_a_tenth(manifest):
    counts = Counter((e.source, e.kind, e.fold) for e in manifest.entries)
    kinds = sorted({(source, kind) for source, kind, _ in counts})
    assert len(kinds) == 9
    for kind in kinds:
        total = sum(counts[*kind, fold] for fold in (*FOLDS, ASIDE))
        assert counts[*kind, "test"] / total == pytest.approx(0.20, abs=0.04)
        assert counts[*kind, "val"] / total == pytest.approx(0.10, abs=0.02)
        assert counts[*kind, ASIDE] / total < 0.04


def test_known_patients_are_those_of_the_tables(manifest):
    known = Counter(e.source for e in manifest.entries if e.patient)
    assert known == {COLLECTION: 3823, TCGA: 3515, IXI: 2358}


@pytest.mark.parametrize("fold", ["test", "val"])
def test_a_patient_in_two_folds_is_refused(tmp_path, manifest, fold):
    scan = next(e for e in manifest.entries if e.patient == "CS_4941")
    assert scan.fold == "train"
    place = f"{scan.sha256},{scan.source},{scan.group},"
    text = manifest.to_csv().replace(f"{place}train", f"{place}{fold}")
    (tmp_path / "patients.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"patient 'CS_4941' of tcga-lgg in the folds .*one fold"):
        read_manifest(PATIENTS, tmp_path)


# --- real scans ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_root) -> tuple[list[Record], np.ndarray]:
    """Return all real scans of the four sources, decoded once for this file."""
    records = find_records(data_root, ALL_SOURCES)
    return records, load_scans(data_root, records)


@pytest.mark.slow
@pytest.mark.data
def test_no_near_duplicate_crosses_folds(real, manifest):
    records, scans = real
    assert [e.file for e in manifest.entries] == [r.file for r in records]
    pairs = find_duplicates(records, scans)
    assert len(pairs) > 5000
    assert read_pairs() == find_crossing(manifest, pairs)
    assert any(
        records[i].source in TABLE_SOURCES or records[j].source in TABLE_SOURCES for i, j in pairs
    )
    for protocol in (PATIENTS, *LEFT_OUT):
        folds = [e.fold for e in read_manifest(protocol).entries]
        assert [p for p in pairs if len({folds[i] for i in p} - {ASIDE}) > 1] == [], protocol


@pytest.mark.slow
@pytest.mark.data
def test_the_committed_manifest_follows_from_the_files(data_root, real, manifest):
    records, scans = real
    check_files(manifest, data_root, range(len(records)))
    pairs = find_duplicates(records, scans)
    assert build_patients(records, hash_files(data_root, records), pairs) == manifest
