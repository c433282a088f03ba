"""Tumour masks drawn from outlines, against areas and places."""

import json
import math
from types import SimpleNamespace

import pytest
from PIL import Image

from train.data.masks import draw_mask, load_masks


def test_outlines_keep_their_area_and_place():
    circle = draw_mask([{"name": "circle", "cx": 100, "cy": 50, "r": 30}], 200, 100)
    scale = 224 / 200
    assert int(circle.sum()) == pytest.approx(math.pi * (30 * scale) ** 2, rel=0.03)
    rows, columns = circle.nonzero().double().mean(0).tolist()
    assert (rows, columns) == pytest.approx((112, 112), abs=1.5)
    ellipse = {"name": "ellipse", "cx": 50, "cy": 100, "rx": 40, "ry": 10, "theta": math.pi / 2}
    turned = draw_mask([ellipse], 200, 200).nonzero()
    height, width = (turned.max(0).values - turned.min(0).values).tolist()
    assert height > 3 * width
    square = {
        "name": "polygon",
        "all_points_x": [0, 99, 99, 0],
        "all_points_y": [0, 0, 99, 99],
    }
    assert float(draw_mask([square], 200, 200)[:110, :110].double().mean()) > 0.97
    with pytest.raises(ValueError, match="unknown shape 'rect'"):
        draw_mask([{"name": "rect"}], 100, 100)


def test_masks_are_found_by_file(tmp_path):
    fold = SimpleNamespace(
        entries=[
            SimpleNamespace(file=f"br35h/{name}.jpg") for name in ("yes/y1", "no/no1", "yes/y2")
        ]
    )
    for entry in fold.entries:
        target = tmp_path / entry.file
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (224, 224)).save(target)
    assert load_masks(fold, tmp_path) == {}
    file = next(e.file for e in fold.entries if "yes" in e.file)
    shape = {"name": "circle", "cx": 112, "cy": 112, "r": 20}
    entry = {"filename": file.split("/")[-1], "regions": [{"shape_attributes": shape}]}
    (tmp_path / "br35h" / "annotations_all.json").write_text(json.dumps({"x": entry}))
    masks = load_masks(fold, tmp_path)
    (row,) = masks
    assert fold.entries[row].file == file
