"""Each kind of odd file and picture is found where it was made, and nowhere else."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.labels.odd import find_odd_files, list_partners
from bench.labels.pictures import LIMITS, find_coloured, find_odd_pictures, measure_pieces
from bench.labels.run import correlate_thumbnails
from core.scan import to_uint8
from demo.phantom import draw_phantom
from train.data.corpus import load_all
from train.data.sources import Record
from train.data.split import Entry
from train.data.split_patients import find_duplicates

COLLECTION = "brain-tumor-mri"


def entry(name: str, kind: str, source: str = "br35h", patient: str = "", sha: str = "") -> Entry:
    return Entry(f"{source}/{name}", sha or name, source, 0, "train", kind, patient)


def find(entries: list[Entry], pairs: list[tuple[int, int]]) -> dict[str, dict[int, list[int]]]:
    found: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for kind, row, others in find_odd_files(entries, pairs):
        found[kind][row] = others
    return dict(found)


def test_identical_files():
    entries = [
        entry("a", "tumour", sha="x"), entry("b", "tumour", sha="x"),
        entry("c", "tumour", sha="y"), entry("d", "no tumour", sha="y"),
        entry("e", "no tumour", sha="z"), entry("f", "no tumour", COLLECTION, sha="z"),
        entry("g", "tumour"),
    ]  # fmt: skip
    assert find(entries, []) == {
        "identical": {0: [1], 1: [0]},
        "identical, other label": {2: [3], 3: [2], 4: [5], 5: [4]},
    }


def test_near_duplicates_with_another_label_are_found_in_any_orientation():
    heads = np.concatenate([to_uint8(draw_phantom(seed, tumour=False)) for seed in (0, 1, 2)])
    scans = np.stack([heads[0], heads[1], np.rot90(heads[0])[:, ::-1], heads[2], heads[2]])
    kinds = ["tumour", "tumour", "no tumour", "tumour", "tumour"]
    entries = [entry(str(i), kind) for i, kind in enumerate(kinds)]
    pairs = find_duplicates([e.record for e in entries], scans)
    assert find(entries, pairs) == {"near-duplicate, other label": {0: [2], 2: [0]}}
    assert list_partners(pairs) == {0: [2], 2: [0], 3: [4], 4: [3]}
    assert correlate_thumbnails(scans, 0, [1, 2]) == pytest.approx(1, abs=1e-3)
    assert correlate_thumbnails(scans, 0, [1]) < 0.97


def test_kinds_and_patients_that_disagree():
    entries = [
        entry("a", "glioma", COLLECTION, "P"), entry("b", "meningioma", COLLECTION, "Q"),
        entry("c", "tumour"),
        entry("d", "meningioma", COLLECTION, "P"), entry("e", "glioma", COLLECTION, "P"),
        entry("f", "no tumour"), entry("g", "no tumour", COLLECTION, "P"),
    ]  # fmt: skip
    pairs = [(0, 1), (0, 2), (5, 6)]
    assert find(entries, pairs) == {
        "near-duplicate, other kind": {0: [1], 1: [0]},
        "patient of another source": {2: [0]},
        "patient, other kind": {3: [0, 4]},
    }


def draw_head(rows: slice = slice(30, 190), columns: slice = slice(50, 180)) -> np.ndarray:
    """Draw a gradient on black, brighter to the right and below."""
    scan = np.zeros((224, 224), np.uint8)
    ramp = np.add.outer(np.arange(224), np.arange(224)) // 5 + 40
    scan[rows, columns] = ramp[rows, columns]
    return scan


def test_odd_pictures():
    small = draw_head(slice(90, 130), slice(90, 130))
    several = draw_head(slice(30, 130), slice(50, 180))
    several[160:216, 64:160] = 90
    line, bright = draw_head(), draw_head()
    line[:, 6] = 255
    bright[bright == 0] = 90
    halves = np.tile(draw_head(slice(30, 190), slice(10, 100))[:, :112], (1, 2))
    scans = np.stack([draw_head(), small, several, line, bright, halves])
    found = defaultdict(list)
    for kind, row, _ in find_odd_pictures(scans):
        found[kind].append(row)
    assert dict(found) == {
        "small head": [1],
        "several pieces": [2, 5],
        "straight line": [3],
        "no black border": [4],
        "bright border": [4],
        "repeated half": [5],
    }


def test_pieces_touch_at_corners():
    tissue = torch.zeros(2, 4, 4, dtype=torch.bool)
    tissue[0, 0, 0] = tissue[0, 1, 1] = tissue[0, 3, 3] = True
    first, second = measure_pieces(tissue)
    assert first.tolist() == [2 / 16, 0] and second.tolist() == [1 / 16, 0]


def test_coloured_files(tmp_path: Path):
    grey = np.repeat(draw_head()[:, :, None], 3, 2)
    marked = grey.copy()
    marked[:20, :20] = [200, 0, 0]
    (tmp_path / "br35h").mkdir()
    for name, picture in (("grey", grey), ("marked", marked), ("single", grey[:, :, 0])):
        Image.fromarray(picture).save(tmp_path / "br35h" / f"{name}.png")
    records = [Record(f"br35h/{n}.png", "br35h", 0, "") for n in ("grey", "marked", "single")]
    assert find_coloured(tmp_path, records) == [("colour", 1, pytest.approx(400 / 224**2))]
    assert LIMITS["colour"][0] < 400 / 224**2


@pytest.mark.slow
@pytest.mark.data
def test_known_facts_of_the_real_data_are_found(data_root: Path, tmp_path: Path):
    data = load_all("patients", data_root, cache=tmp_path)
    pairs = find_duplicates([e.record for e in data.entries], data.scans)
    found = find(list(data.entries), pairs)
    names = {kind: {data.entries[i].file for i in rows} for kind, rows in found.items()}
    assert {f for f in names["identical"] if f.startswith("br35h")} == {
        "br35h/no/no355.jpg", "br35h/no/no532.jpg",
    }  # fmt: skip
    assert names["patient, other kind"] == {
        f"{COLLECTION}/pituitary/{name}.jpg"
        for name in ("Te-piTr_0002", "Tr-pi_0515", "Tr-pi_0520")
    }
    copies = {
        data.entries[i].file
        for i, others in found["patient of another source"].items()
        if data.entries[i].source == "br35h"
        and any(data.entries[j].record.subtype == "glioma" for j in others)
        and correlate_thumbnails(data.scans, i, others) > 0.99
    }
    assert copies == {"br35h/yes/y1393.jpg", "br35h/yes/y1394.jpg"}
