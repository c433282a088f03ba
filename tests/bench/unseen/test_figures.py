"""Figures of made-up answers, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.unseen.figures import (
    Facts,
    average_balanced_accuracy,
    measure_block,
    measure_units,
    share_by_unit,
    summarize_system,
)
from bench.unseen.sizes import LIMITS, measure_share, measure_sizes, name_size
from core import metrics
from train.data.dataset import ScanDataset
from train.data.split import Entry

# source, unit, patient, view, kind, size, answer; a kind is a tumour
SCANS = [
    ("tcga-lgg", 0, "P", "flair axial", "glioma", "small", 2.0),
    ("tcga-lgg", 0, "P", "flair axial", "glioma", "large", -1.0),
    ("tcga-lgg", 0, "P", "post axial", "", "", 1.0),
    ("tcga-lgg", 1, "Q", "post axial", "glioma", "large", 3.0),
    ("tcga-lgg", 1, "Q", "flair axial", "", "", -4.5),
    ("br35h", 2, "", "", "tumour", "", 1.0),
    ("br35h", 3, "", "", "", "", -1.0),
    ("br35h", 3, "", "", "", "", 0.0),
    ("br35h", 4, "", "", "", "", -2.0),
    ("ixi", 5, "R", "t1 axial", "", "", 5.0),
]
SOURCES, UNITS, PATIENTS, VIEWS, KINDS, SIZES, ANSWERS = map(list, zip(*SCANS, strict=True))
FACTS = Facts(
    torch.tensor([int(bool(kind)) for kind in KINDS]),
    UNITS, PATIENTS, SOURCES, VIEWS, KINDS, SIZES,
)  # fmt: skip
LOG_ODDS = torch.tensor(ANSWERS, dtype=torch.float64)


@pytest.fixture(scope="module")
def found() -> dict:
    return summarize_system(LOG_ODDS, FACTS)


def values(block: dict) -> dict[str, float]:
    return {
        k: block[k]["value"] for k in ("recall", "specificity", "balanced", "auc") if k in block
    }


def test_scans_are_counted_by_source(found: dict) -> None:
    tcga, br35h, ixi = (found["sources"][name] for name in ("tcga-lgg", "br35h", "ixi"))
    assert (tcga["n"], tcga["tumours"], tcga["units"], tcga["patients"]) == (5, 3, 2, 2)
    # pairs of a tumour and none that are in order: 2 > 1, 3 > 1, and all three above -4.5
    assert values(tcga) == pytest.approx(
        {"recall": 2 / 3, "specificity": 1 / 2, "balanced": 7 / 12, "auc": 5 / 6}
    )
    # log-odds of 0 are 'tumour'
    assert values(br35h) == pytest.approx(
        {"recall": 1, "specificity": 2 / 3, "balanced": 5 / 6, "auc": 1}
    )
    assert (br35h["units"], br35h["patients"]) == (3, 0)
    assert values(ixi) == {"specificity": 0}
    assert (ixi["tumours"], ixi["specificity"]["k"], ixi["specificity"]["n"]) == (0, 0, 1)


def test_the_mean_leaves_out_a_source_of_one_class(found: dict) -> None:
    mean = found["mean_balanced"]
    assert mean["sources"] == ["br35h", "tcga-lgg"]
    assert mean["value"] == pytest.approx((7 / 12 + 5 / 6) / 2)
    assert mean["interval"][0] < mean["value"] < mean["interval"][1]
    assert average_balanced_accuracy(LOG_ODDS[9:], FACTS.pick([9])) == {"sources": []}


def test_views_kinds_and_sizes_are_apart(found: dict) -> None:
    tcga = found["sources"]["tcga-lgg"]
    assert values(tcga["views"]["flair axial"]) == pytest.approx(
        {"recall": 1 / 2, "specificity": 1, "balanced": 3 / 4, "auc": 1}
    )
    assert values(tcga["views"]["post axial"]) == pytest.approx(
        {"recall": 1, "specificity": 0, "balanced": 1 / 2, "auc": 1}
    )
    assert [(k, v["k"], v["n"]) for k, v in tcga["kinds"].items()] == [("glioma", 2, 3)]
    sizes = [(k, v["k"], v["n"], v["units"]) for k, v in tcga["sizes"].items()]
    assert sizes == [("small", 1, 1, 1), ("large", 1, 2, 2)]
    assert found["sources"]["br35h"]["views"] == found["sources"]["br35h"]["sizes"] == {}


def test_a_patient_s_answer_is_the_mean_of_the_slices() -> None:
    units = measure_units(LOG_ODDS, FACTS)
    # P: 2/3, a tumour; Q: -3/4, a tumour; then 1 with one; -1/2, -2 and 5 without
    assert (units["n"], units["tumours"], units["units"]) == (6, 3, 6)
    assert values(units) == pytest.approx(
        {"recall": 2 / 3, "specificity": 2 / 3, "balanced": 2 / 3, "auc": 5 / 9}
    )


def test_intervals_are_those_of_the_units() -> None:
    chosen, units = torch.tensor([True, True, False, True]), [1, 1, 2, 2]
    found = share_by_unit(chosen, units)
    assert found["interval"] == metrics.group_bootstrap_interval(chosen, units)
    assert (found["k"], found["n"], found["units"], found["value"]) == (3, 4, 2, 0.75)
    for every in (True, False):
        alike = share_by_unit(torch.full((4,), every), units)
        assert alike["interval"] == metrics.wilson_interval(2 * every, 2)
    y, log_odds = torch.tensor([0, 0, 1, 1]), torch.tensor([-1.0, -2, 1, 2])
    block = measure_block(log_odds, y, [0, 1, 2, 3])
    assert block["auc"] == block["balanced"] == {"value": 1, "interval": None}


def test_a_size_is_the_mask_s_share_of_the_head() -> None:
    scan = np.zeros((224, 224), np.uint8)
    scan[:100, :100] = 90
    mask = np.zeros((224, 224), bool)
    mask[90:110, :50] = True  # half of it is black in the picture, and still head
    assert measure_share(scan, mask) == pytest.approx(1000 / 10500)
    low, high = LIMITS
    assert [name_size(v) for v in (0, low - 1e-6, low, high - 1e-6, high, 1)] == [
        "small", "small", "medium", "medium", "large", "large",
    ]  # fmt: skip


def test_sizes_are_those_of_the_outlined_tumours(tmp_path: Path) -> None:
    names = [f"br35h/yes/{i}.png" for i in range(2)]
    (tmp_path / "br35h" / "yes").mkdir(parents=True)
    for name in names:
        Image.new("L", (112, 112), 90).save(tmp_path / name)
    shape = {"name": "polygon", "all_points_x": [10, 29, 29, 10], "all_points_y": [10, 10, 29, 29]}
    listed = {"a": {"filename": "1.png", "regions": [{"shape_attributes": shape}]}}
    (tmp_path / "br35h" / "annotations_all.json").write_text(json.dumps(listed))
    entries = [Entry(name, "", "br35h", i, "test", "tumour") for i, name in enumerate(names)]
    scans = np.full((2, 224, 224), 90, np.uint8)
    fold = ScanDataset(scans, torch.ones(2).long(), ["br35h/1"] * 2, [0, 1], (), entries)
    assert measure_sizes(fold, tmp_path) == {1: pytest.approx((20 / 112) ** 2)}
