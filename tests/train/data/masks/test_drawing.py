"""Tumour masks lie where the reader puts their pictures, against areas and places."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.scan import read_scan
from train.data.dataset import ScanDataset
from train.data.errors import DataError
from train.data.masks import MIN_PIXELS, Outline, draw_mask, find_outlines, load_masks
from train.data.source_tables import COLLECTION, TCGA
from train.data.sources import ALL_SOURCES, BR35H, find_records
from train.data.split import Entry

PLAIN = "brain-tumor-mri/glioma/0.png"
MIRRORED = "brain-tumor-mri/meningioma/0.png"
OUTLINED = "br35h/yes/0.png"


def draw(shapes: list[dict], width: int, height: int, folder: Path) -> torch.Tensor:
    Image.new("L", (width, height)).save(folder / "a.png")
    return torch.from_numpy(draw_mask(Outline(shapes=tuple(shapes)), folder, "a.png"))


def build_fold(root: Path) -> ScanDataset:
    entries = [
        Entry(r.file, "", r.source, i, "train", r.subtype, r.patient)
        for i, r in enumerate(find_records(root, ALL_SOURCES))
    ]
    n = len(entries)
    return ScanDataset(np.zeros((n, 1, 1)), torch.zeros(n), ["a/0"] * n, range(n), entries=entries)


# --- geometry ------------------------------------------------------------------------------------


def test_outlines_keep_their_area_and_place(tmp_path):
    circle = draw([{"name": "circle", "cx": 100, "cy": 50, "r": 30}], 200, 100, tmp_path)
    scale = 224 / 200
    assert int(circle.sum()) == pytest.approx(math.pi * (30 * scale) ** 2, rel=0.03)
    rows, columns = circle.nonzero().double().mean(0).tolist()
    assert (rows, columns) == pytest.approx((112, 112), abs=1.5)
    ellipse = {"name": "ellipse", "cx": 50, "cy": 100, "rx": 40, "ry": 10, "theta": math.pi / 2}
    turned = draw([ellipse], 200, 200, tmp_path).nonzero()
    height, width = (turned.max(0).values - turned.min(0).values).tolist()
    assert height > 3 * width
    square = {
        "name": "polygon",
        "all_points_x": [0, 99, 99, 0],
        "all_points_y": [0, 0, 99, 99],
    }
    assert float(draw([square], 200, 200, tmp_path)[:110, :110].double().mean()) > 0.97
    both = draw([square, {"name": "circle", "cx": 150, "cy": 150, "r": 20}], 200, 200, tmp_path)
    assert both[168, 168] and both[50, 50] and not both[168, 50]


@pytest.mark.parametrize("shape", [(90, 120), (120, 90), (224, 224), (224, 101), (512, 512)])
def test_a_mask_lands_on_the_pixels_where_the_reader_puts_its_picture(tmp_path, shape):
    """A picture that is its own mask: the two agree in every pixel."""
    rng = np.random.default_rng(sum(shape))
    coarse = rng.random((shape[0] // 6 + 1, shape[1] // 6 + 1)) < 0.4
    area = np.kron(coarse, np.ones((6, 6), dtype=bool))[: shape[0], : shape[1]]
    Image.fromarray(area.astype(np.uint8) * 255).save(tmp_path / "scan.png")
    Image.fromarray(area).save(tmp_path / "mask.png")
    seen = read_scan(tmp_path / "scan.png")[0].numpy() >= 0.5
    assert np.array_equal(draw_mask(Outline("mask.png"), tmp_path, "scan.png"), seen)
    Image.fromarray(area[:, ::-1]).save(tmp_path / "mask.png")
    assert np.array_equal(draw_mask(Outline("mask.png", True), tmp_path, "scan.png"), seen)


def test_a_picture_on_its_side_is_turned_as_the_reader_turns_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (100, 50)).save(tmp_path / "a.jpg", exif=exif)
    circle = {"name": "circle", "cx": 25, "cy": 20, "r": 10}  # of 50 x 100, upright
    mask = draw_mask(Outline(shapes=(circle,)), tmp_path, "a.jpg")
    rows, columns = (float(np.mean(found)) for found in np.nonzero(mask))
    assert (rows, columns) == pytest.approx((20 * 2.24, 112), abs=1.5)


# --- where masks are found -----------------------------------------------------------------------


def test_masks_of_all_sources_are_found_by_file(four_sources):
    fold = build_fold(four_sources)
    masks = load_masks(fold, four_sources)
    found = {fold.entries[row].file: mask for row, mask in masks.items()}
    assert set(found) == {
        OUTLINED,
        PLAIN,
        MIRRORED,
        "tcga-lgg/flair/CS_1_001.jpg",
        "tcga-lgg/flair/DU_2_001.jpg",
    }
    for file in (PLAIN, "tcga-lgg/flair/CS_1_001.jpg"):  # a box of 512 or 256 pixels
        expected = torch.zeros(224, 224, dtype=torch.bool)
        expected[56:112, 28:56] = True
        assert torch.equal(found[file], expected)
    assert torch.equal(found[MIRRORED], found[PLAIN].flip(1))
    rows, columns = found[OUTLINED].nonzero().double().mean(0).tolist()
    assert (rows, columns) == pytest.approx((56, 112), abs=1)
    assert int(found[OUTLINED].sum()) == pytest.approx(math.pi * 20**2, rel=0.05)


def test_a_mask_of_fewer_pixels_is_left_out(four_sources):
    mask = np.zeros((224, 224), dtype=bool)
    mask[:MIN_PIXELS, 0] = True
    place = four_sources / "brain-tumor-mri-masks" / "7.png"
    Image.fromarray(mask).save(place)
    fold = build_fold(four_sources)
    before = {fold.entries[row].file for row in load_masks(fold, four_sources)}
    mask[0] = False
    Image.fromarray(mask).save(place)
    after = {fold.entries[row].file for row in load_masks(fold, four_sources)}
    assert before - after == {PLAIN, MIRRORED}


def test_sources_that_are_not_asked_for_or_have_no_table_have_no_masks(four_sources):
    assert set(find_outlines(four_sources, [BR35H])) == {OUTLINED}
    assert set(find_outlines(four_sources, [COLLECTION, "ixi"])) == {PLAIN, MIRRORED}
    (four_sources / f"{COLLECTION}.csv").unlink()
    (four_sources / BR35H / "annotations_all.json").unlink()
    assert {file.split("/")[0] for file in find_outlines(four_sources, ALL_SOURCES)} == {TCGA}


# --- what is refused -----------------------------------------------------------------------------


def test_a_mask_whose_picture_is_missing_is_named(four_sources):
    (four_sources / PLAIN).unlink()
    with pytest.raises(DataError, match=f"^1 tumour masks .* first is the mask of {PLAIN}, which"):
        find_outlines(four_sources, [COLLECTION])
    (four_sources / OUTLINED).unlink()
    with pytest.raises(DataError, match=f"^2 tumour masks .* first is the mask of {OUTLINED}"):
        find_outlines(four_sources, ALL_SOURCES)


def test_a_missing_mask_is_named(four_sources):
    shutil.rmtree(four_sources / "brain-tumor-mri-masks")
    with pytest.raises(DataError, match=r"tumour mask .*7.png, which a table names, is missing"):
        load_masks(build_fold(four_sources), four_sources)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_mask_is_named(four_sources, content):
    (four_sources / "brain-tumor-mri-masks" / "7.png").write_bytes(content)
    with pytest.raises(DataError, match=r"tumour mask .*7.png is no picture that can be read"):
        load_masks(build_fold(four_sources), four_sources)


def test_a_mask_of_another_shape_is_named(four_sources):
    Image.new("1", (512, 400)).save(four_sources / "brain-tumor-mri-masks" / "7.png")
    expected = r"7.png has 512 x 400 pixels, which is not the shape of .*0.png \(224 x 224\)"
    with pytest.raises(DataError, match=expected):
        load_masks(build_fold(four_sources), four_sources)


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "rect"},
        {"name": "circle", "cx": 3, "cy": 4},
        {"name": "polygon", "all_points_x": [1], "all_points_y": [1, 2]},
        {"name": "polygon", "all_points_x": [1], "all_points_y": [1]},
        {"name": "polygon", "all_points_x": ["1", "2"], "all_points_y": [1, 2]},
        {},
    ],
)
def test_an_unknown_shape_is_refused(tmp_path, shape):
    name = shape.get("name")
    with pytest.raises(DataError, match=rf"outline of a.png has an unknown shape '?{name}'? or"):
        draw([shape], 100, 100, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", json.dumps({"x": {"filename": "0.png"}}), json.dumps({"x": 3})]
)
def test_annotations_of_another_format_are_refused(four_sources, text):
    (four_sources / BR35H / "annotations_all.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations_all.json does not hold outlines in the form"):
        find_outlines(four_sources, [BR35H])
