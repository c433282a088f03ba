"""No group of near-duplicates is in two folds; folds depend on the files alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from core.scan import to_uint8
from demo.phantom import draw_phantom
from train.data.errors import DataError
from train.data.near_duplicates import compute_thumbnails, find_groups, list_orientations
from train.data.source_tables import COLLECTION
from train.data.sources import (
    ALL_SOURCES,
    BR35H,
    SOURCES,
    Record,
    find_records,
    hash_files,
    load_scans,
)
from train.data.split import (
    ASIDE,
    FOLDS,
    GROUPED,
    LEFT_OUT,
    PAPER,
    PATIENTS,
    PROTOCOLS,
    build_paper,
    check_files,
    choose_fold,
    read_manifest,
)


@pytest.fixture(scope="module")
def scans() -> np.ndarray:
    """Draw forty different heads, uint8 (40, 224, 224)."""
    return np.concatenate(
        [to_uint8(draw_phantom(seed, tumour=seed % 2 == 1)) for seed in range(40)]
    )


def records_for(count: int, source: str = BR35H) -> list[Record]:
    folder, (label, subtype) = next(iter(SOURCES[source].items()))
    return [Record(f"{source}/{folder}/{i}.png", source, label, subtype) for i in range(count)]


def digests_for(names: list[str]) -> list[str]:
    return [hashlib.sha256(name.encode()).hexdigest() for name in names]


# --- groups --------------------------------------------------------------------------------------


def test_thumbnails_have_zero_mean_and_unit_norm(scans):
    thumbs = compute_thumbnails(scans)
    assert thumbs.shape == (40, 576)
    assert np.allclose(thumbs.mean(axis=1), 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(thumbs, axis=1), 1, atol=1e-5)


def test_thumbnails_ignore_brightness_and_contrast(scans):
    dimmed = (scans * 0.5 + 40).round().astype(np.uint8)
    assert ((compute_thumbnails(scans) * compute_thumbnails(dimmed)).sum(axis=1) > 0.999).all()


def test_the_eight_forms_are_those_of_the_turned_and_mirrored_scans(scans):
    thumbs = compute_thumbnails(scans[:3])
    forms = list_orientations(thumbs)
    assert len(forms) == 8
    for change in (lambda s: s, np.fliplr, np.flipud, np.rot90, np.transpose):
        changed = compute_thumbnails(np.stack([np.ascontiguousarray(change(s)) for s in scans[:3]]))
        assert min(np.abs(form - changed).max() for form in forms) < 0.02


def test_copies_mirrored_turned_or_dimmed_join_their_scan(scans):
    scan = scans[0]
    changes = [scan, scan[:, ::-1], scan[::-1], scan[::-1, ::-1], np.rot90(scan), scan.T]
    family = np.stack([scan, *changes, (scan * 0.8).astype(np.uint8)])
    groups = find_groups(compute_thumbnails(np.concatenate([family, scans[1:4]])))
    assert set(groups[: len(family)]) == {0}
    assert 0 not in groups[len(family) :]


def test_groups_are_connected_components(scans):
    """A chain is one group: first and last are far apart, but neighbours are close."""
    thumbs = compute_thumbnails(scans[:2])
    share = np.linspace(0, 1, 30)[:, None]
    chain = (1 - share) * thumbs[:1] + share * thumbs[1:2]
    chain /= np.linalg.norm(chain, axis=1, keepdims=True)
    assert chain[0] @ chain[-1] < 0.97
    assert set(find_groups(chain.astype(np.float32))) == {0}
    assert len(set(find_groups(chain[[0, -1]].astype(np.float32)))) == 2


def test_groups_are_named_by_their_first_scan_and_closed_under_closeness(scans):
    family = np.concatenate([scans, scans[:10, :, ::-1], scans[5:15, ::-1]])
    thumbs = compute_thumbnails(family)
    groups = find_groups(thumbs)
    upside_down = compute_thumbnails(np.ascontiguousarray(family[:, ::-1]))
    close = np.maximum(thumbs @ thumbs.T, thumbs @ upside_down.T) > 0.97
    rows, columns = np.nonzero(close)
    assert (groups[rows] == groups[columns]).all()
    for group in set(groups):
        assert np.flatnonzero(groups == group)[0] == group


def test_grouping_does_not_depend_on_the_order(scans):
    family = np.concatenate([scans, scans[:10, :, ::-1]])
    order = np.random.default_rng(0).permutation(len(family))
    straight, shuffled = (
        find_groups(compute_thumbnails(family)),
        find_groups(compute_thumbnails(family[order])),
    )

    def partition(groups, names):
        members = defaultdict(set)
        for group, name in zip(groups, names, strict=True):
            members[int(group)].add(int(name))
        return {frozenset(m) for m in members.values()}

    assert partition(straight, range(len(family))) == partition(shuffled, order)


# --- folds ---------------------------------------------------------------------------------------


def test_a_fold_is_decided_by_the_digest_alone():
    digests = digests_for([str(i) for i in range(4000)])
    folds = [choose_fold(d) for d in digests]
    assert folds == [choose_fold(d) for d in digests]
    share = {fold: n / len(folds) for fold, n in Counter(folds).items()}
    assert share["test"] == pytest.approx(0.20, abs=0.02)
    assert share["val"] == pytest.approx(0.10, abs=0.02)
    assert share["train"] == pytest.approx(0.70, abs=0.02)


def test_a_known_digest_keeps_its_fold_forever():
    folds = {c: choose_fold(c * 64) for c in "0123456789abcdef"}
    assert {c for c, fold in folds.items() if fold == "test"} == {"1", "9"}
    assert {c for c, fold in folds.items() if fold == "train"} == set("02345678abcdef")


def both_sources(scans: np.ndarray) -> tuple[list[Record], list[str], np.ndarray]:
    """Draw twenty scans per source; ten of the second are mirror images of the first's."""
    records = records_for(20, COLLECTION) + records_for(20, BR35H)
    pictures = np.concatenate([scans[:5, :, ::-1], scans[5:10, ::-1], scans[20:30], scans[:20]])
    return records, digests_for([r.file for r in records]), pictures


def test_the_paper_s_scans_are_of_br35h_and_grouped_over_both_sources(scans):
    """The first ten scans are mirror images of the second source's: their groups begin there."""
    records, digests, pictures = both_sources(scans)
    manifest = build_paper(records, digests, pictures)
    assert manifest.protocol == PAPER
    assert [(e.file, e.sha256) for e in manifest.entries] == [
        (r.file, d) for r, d in zip(records[20:], digests[20:], strict=True)
    ]
    assert [e.group for e in manifest.entries] == [*range(10), *range(30, 40)]


def test_a_manifest_survives_its_text(scans, tmp_path):
    manifest = build_paper(*both_sources(scans))
    (tmp_path / "paper.csv").write_text(manifest.to_csv())
    again = read_manifest(PAPER, tmp_path)
    assert again == manifest
    assert again.sha256 == manifest.sha256


def test_further_sources_do_not_change_the_paper_s_split(scans):
    records, digests, pictures = both_sources(scans)
    others = [Record(f"ixi/{i}.png", "ixi", 0, "no tumour", f"P{i}") for i in range(3)]
    more = (records + others, digests + digests[:3], np.concatenate([pictures, pictures[:3]]))
    assert build_paper(*more) == build_paper(records, digests, pictures)


# --- the committed manifests ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_committed_manifests_are_sane(protocol):
    manifest = read_manifest(protocol)
    files = [e.file for e in manifest.entries]
    assert files == sorted(set(files))
    aside = {ASIDE} if protocol == PATIENTS or protocol in LEFT_OUT else set()
    assert {e.fold for e in manifest.entries} == {*FOLDS, *aside}
    assert {e.source for e in manifest.entries} == set(PROTOCOLS[protocol])
    assert all(len(e.sha256) == 64 and int(e.sha256, 16) >= 0 for e in manifest.entries)
    assert all(e.file.startswith(f"{e.source}/") for e in manifest.entries)
    positions = manifest.find_positions(*FOLDS, *aside)
    assert positions == list(range(len(files)))
    assert sum(manifest.count_scans().values()) == len(files)


@pytest.mark.parametrize("protocol", [PATIENTS, *LEFT_OUT])
def test_committed_groups_stay_in_one_fold(protocol):
    folds = defaultdict(set)
    for entry in read_manifest(protocol).entries:
        if entry.fold != ASIDE:
            folds[entry.group].add(entry.fold)
    assert all(len(f) == 1 for f in folds.values())


def test_identical_files_are_in_one_fold():
    folds = defaultdict(set)
    for entry in read_manifest(PATIENTS).entries:
        if entry.fold != ASIDE:
            folds[entry.sha256].add(entry.fold)
    assert all(len(f) == 1 for f in folds.values())


def test_the_paper_protocol_is_2400_and_600():
    counts = Counter(e.fold for e in read_manifest("paper").entries)
    assert counts["test"] == 600
    assert counts["train"] + counts["val"] == 2400


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(DataError, match="unknown protocol 'papers': choose from paper, patients"):
        read_manifest("papers")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file,sha256\na,b\n",
        "file,sha256,source,group,fold\nbr35h/yes/a.jpg,00,br35h,x,train\n",
        "file,sha256,source,group,fold\nbr35h/yes/a.jpg,00,br35h\n",
        "file,sha256,source,group,fold\nbr35h/yes/a.jpg,00,br35h,0,exam\n",
        "file,sha256,source,group,fold\nbr35h/yes/a.jpg,00,br35h,0,train,tumour\n",
        "file,sha256,source,group,fold,kind\nbr35h/yes/a.jpg,00,br35h,0,train,tumour\n",
        "file,sha256,source,group,fold,kind,patient,sequence,plane\n"
        "br35h/yes/a.jpg,00,br35h,0,train,tumour\n",
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / "paper.csv").write_text(text)
    with pytest.raises(DataError, match="no split manifest"):
        read_manifest("paper", tmp_path)


def test_a_folder_that_differs_from_its_manifest_is_refused(brain_folder):
    root = brain_folder(6)
    records = find_records(root, [BR35H])
    manifest = build_paper(records, hash_files(root, records), load_scans(root, records))
    everything = range(len(manifest.entries))
    check_files(manifest, root, everything)
    (root / manifest.entries[3].file).write_bytes(b"other")
    (root / manifest.entries[5].file).unlink()
    with pytest.raises(DataError, match=f"2 of 12 files .* first is {manifest.entries[3].file}"):
        check_files(manifest, root, everything)
    check_files(manifest, root, [0, 1, 2])


# --- real scans ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_root) -> tuple[list[Record], np.ndarray]:
    """Return all real scans, decoded once for this file."""
    records = find_records(data_root, ALL_SOURCES)
    return records, load_scans(data_root, records)


@pytest.mark.data
def test_the_real_files_are_those_of_the_manifests(data_root):
    manifest = read_manifest(PATIENTS)
    check_files(manifest, data_root, range(len(manifest.entries)))
    assert [e.record for e in manifest.entries] == find_records(data_root, ALL_SOURCES)


@pytest.mark.slow
@pytest.mark.data
def test_no_test_scan_of_two_sources_has_a_copy_in_another_fold(real):
    """Independent of the grouping: pictures are rotated as pictures, and compared."""
    manifest = read_manifest(PATIENTS)
    position = {record: i for i, record in enumerate(real[0])}
    scans = real[1][[position[e.record] for e in manifest.entries]]

    def find(*folds: str) -> list[int]:
        found = manifest.find_positions(*folds)
        return [i for i in found if manifest.entries[i].source in GROUPED]

    test, known = find("test"), compute_thumbnails(scans[find("train", "val")])
    for view in (scans[test], scans[test][:, :, ::-1]):
        for k in range(4):
            turned_scans = np.ascontiguousarray(np.rot90(view, k, axes=(1, 2)))
            assert (compute_thumbnails(turned_scans) @ known.T).max() < 0.98


@pytest.mark.data
@pytest.mark.slow
def test_the_paper_s_manifest_follows_from_the_files(data_root, real):
    records, scans = real
    assert build_paper(records, hash_files(data_root, records), scans) == read_manifest(PAPER)
