"""Masks for training: shares of cells, known for healthy and outlined scans, in step with scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from train.data.corpus import load_corpus
from train.data.errors import DataError
from train.data.masks import array, load_mask_array
from train.data.sources import ALL_SOURCES, BR35H, find_records

MASK = "brain-tumor-mri-masks/7.png"
GLIOMA = "brain-tumor-mri/glioma/0.png"
# tumours without a mask, of the small data folder
UNKNOWN = {
    "br35h/yes/1.png",
    "brain-tumor-mri/glioma/1.png",
    "brain-tumor-mri/meningioma/1.png",
    "brain-tumor-mri/pituitary/0.png",
    "brain-tumor-mri/pituitary/1.png",
}


def load_one(root, file: str, cache=None) -> tuple[np.ndarray, bool]:
    records = find_records(root, ALL_SOURCES)
    found = load_mask_array(records, root, cache)
    row = [r.file for r in records].index(file)
    return found.masks[row], bool(found.is_outlined[row])


def test_healthy_scans_have_empty_masks_and_tumours_without_one_are_unknown(four_sources):
    records = find_records(four_sources, ALL_SOURCES)
    found = load_mask_array(records, four_sources)
    assert found.masks.shape == (19, 112, 112) and found.masks.dtype == np.uint8
    assert found.is_outlined.shape == (19,) and found.is_outlined.dtype == np.bool_
    for record, mask, is_known in zip(records, found.masks, found.is_outlined, strict=True):
        assert is_known == (record.file not in UNKNOWN)
        assert mask.any() == bool(record.label and record.file not in UNKNOWN)


def test_a_cell_is_the_share_of_its_four_pixels(four_sources):
    mask = np.zeros((224, 224), dtype=bool)
    mask[0, 0] = mask[2, 2:4] = mask[4, 4:6] = mask[5, 4] = mask[6:8, 6:8] = True
    Image.fromarray(mask).save(four_sources / MASK)
    cells, is_known = load_one(four_sources, GLIOMA)
    assert is_known
    expected = np.zeros((112, 112), dtype=np.uint8)
    expected[0, 0], expected[1, 1], expected[2, 2], expected[3, 3] = 64, 128, 191, 255
    assert np.array_equal(cells, expected)


def test_the_smallest_tumour_is_kept_and_an_empty_mask_is_none(four_sources):
    mask = np.zeros((224, 224), dtype=bool)
    mask[9, 9] = True
    Image.fromarray(mask).save(four_sources / MASK)
    cells, is_known = load_one(four_sources, GLIOMA)
    assert is_known and cells.sum() == cells[4, 4] == 64
    Image.new("1", (224, 224)).save(four_sources / MASK)
    cells, is_known = load_one(four_sources, GLIOMA)
    assert not is_known and not cells.any()


def test_masks_are_drawn_once_and_anew_when_one_changes(four_sources, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    before, _ = load_one(four_sources, GLIOMA, cache)
    assert np.array_equal(before, load_one(four_sources, GLIOMA)[0])
    with monkeypatch.context() as patch:
        patch.setattr(array, "_draw_all", lambda *_: pytest.fail("drawn again"))
        assert np.array_equal(load_one(four_sources, GLIOMA, cache)[0], before)
    Image.new("1", (512, 512), 1).save(four_sources / MASK)
    assert (load_one(four_sources, GLIOMA, cache)[0] == 255).all()
    annotations = four_sources / BR35H / "annotations_all.json"
    small = load_one(four_sources, "br35h/yes/0.png", cache)[0]
    annotations.write_text(annotations.read_text().replace('"r": 20', '"r": 40'))
    large = load_one(four_sources, "br35h/yes/0.png", cache)[0]
    assert large.sum() / small.sum() == pytest.approx(4, rel=0.05)


def test_a_healthy_scan_with_a_mask_is_refused(four_sources):
    records = find_records(four_sources, ALL_SOURCES)
    records = [replace(r, label=0) if r.file == GLIOMA else r for r in records]
    with pytest.raises(DataError, match=f"^{GLIOMA} shows no tumour, but has a tumour mask"):
        load_mask_array(records, four_sources)


def test_a_missing_mask_is_named_with_a_cache_too(four_sources, tmp_path):
    (four_sources / MASK).unlink()
    with pytest.raises(DataError, match=r"7.png, which a table names, is missing"):
        load_one(four_sources, GLIOMA, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_data_without_masks_have_none(four_sources, manifests):
    (four_sources / BR35H / "annotations_all.json").unlink()
    records = find_records(four_sources, [BR35H, "ixi"])
    assert load_mask_array(records, four_sources) is None


# --- in a corpus ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_corpus_holds_the_masks_of_its_scans_in_their_order(
    four_sources, manifests, tmp_path, is_cached
):
    cache = tmp_path / "cache" if is_cached else None
    corpus = load_corpus("patients", four_sources, cache, manifests, with_masks=True)
    records = find_records(four_sources, ALL_SOURCES)
    found, row_of = (
        load_mask_array(records, four_sources),
        {r.file: i for i, r in enumerate(records)},
    )
    for data in (corpus.train, corpus.val):
        rows = [row_of[entry.file] for entry in data.entries]
        assert np.array_equal(data.masks, found.masks[rows])
        assert np.array_equal(data.is_outlined, found.is_outlined[rows])
    assert len(corpus.train) == 9 and corpus.train.is_outlined.sum() == 8
    assert corpus.train.masks.any(axis=(1, 2)).sum() == 4
    assert corpus.val.masks.any(axis=(1, 2)).sum() == 1  # of tcga-lgg's second patient


def test_masks_are_loaded_where_they_are_asked_for(four_sources, manifests):
    corpus = load_corpus("patients", four_sources, None, manifests)
    assert corpus.train.masks is None and corpus.val.is_outlined is None


def test_picked_and_thinned_scans_keep_their_masks(four_sources, manifests):
    data = load_corpus("patients", four_sources, None, manifests, with_masks=True).train
    some = data.pick([7, 2, 2])
    assert np.array_equal(some.masks, data.masks[[7, 2, 2]])
    assert np.array_equal(some.is_outlined, data.is_outlined[[7, 2, 2]])
    thin = data.thin(4)
    assert np.array_equal(thin.masks, data.masks[[0, 3, 5, 8]])
    assert np.array_equal(thin.is_outlined, data.is_outlined[[0, 3, 5, 8]])
    bare = replace(data, masks=None, is_outlined=None).pick([1, 2])
    assert bare.masks is None and bare.is_outlined is None


def test_other_pictures_have_no_masks(four_sources, manifests):
    corpus = load_corpus("folder", four_sources / BR35H, None)
    assert corpus.train.masks is None and corpus.train.is_outlined is None


@pytest.mark.data
@pytest.mark.slow
def test_every_outlined_tumour_of_the_real_scans_has_a_mask(data_root):
    records = find_records(data_root, ALL_SOURCES)
    found = load_mask_array(records, data_root)
    counts = dict.fromkeys(ALL_SOURCES, 0)
    for record, mask in zip(records, found.masks, strict=True):
        counts[record.source] += bool(mask.any())
    assert counts == {"br35h": 801, "brain-tumor-mri": 3823, "tcga-lgg": 1998, "ixi": 0}
    assert found.is_outlined.sum() == 6622 + 1500 + 1762 + 1517 + 2358
