"""Painting over and pointing: geometry on drawn scans, rows on an untrained system."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.components import explanations
from bench.components.lesions import (
    MAX_PATCH_DISTANCE,
    find_control_patch,
    find_midline,
    mirror,
    occlude,
    widen,
)
from bench.provenance import machine_facts
from bench.report.write import fill
from bench.result_file import ResultFile

SIDE = 224


def brain(centre: int = 112, radius: int = 80) -> Tensor:
    """A disc (1, H, W) that is brighter towards its top and alike on both sides."""
    rows = torch.arange(SIDE).float()[:, None]
    columns = torch.arange(SIDE).float()[None]
    inside = (rows - 112) ** 2 + (columns - centre + 0.5) ** 2 < radius**2
    return (inside * (0.7 - rows / SIDE / 3))[None]


def square(top: int, left: int, side: int = 24) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("centre", [100, 112, 125])
def test_the_midline_of_a_symmetric_scan_is_found(centre):
    x = brain(centre)
    shift = find_midline(x)
    assert shift == 2 * (centre - 112)
    assert torch.equal(mirror(x, shift), x)


def test_a_painted_tumour_is_gone_and_the_rest_as_it_was():
    healthy, mask = brain(), square(90, 60)
    x = healthy.clone()
    x[0][mask] = 1.0
    shift = find_midline(x)
    out = occlude(x, mask, shift)
    assert torch.allclose(out[0][mask], healthy[0][mask], atol=1e-6)
    far = ~widen(widen(widen(mask)))
    assert torch.equal(out[0][far], x[0][far])
    assert out.min() >= 0 and out.max() <= 1


def test_elsewhere_is_in_the_brain_of_the_same_shape_and_touches_no_tumour():
    x, mask = brain(), square(90, 60)
    place = find_control_patch(x, mask, 0)
    assert place is not None and int(place.sum()) == int(mask.sum())
    taken = mask | mirror(mask, 0)
    assert not (place & taken).any() and not (mirror(place, 0) & taken).any()
    assert x[0][place].gt(0.08).float().mean() > 0.9


def test_a_tumour_that_fills_the_brain_has_no_elsewhere():
    assert find_control_patch(brain(radius=20), square(100, 100, 20), 0) is None
    assert MAX_PATCH_DISTANCE < SIDE


@pytest.fixture(scope="module")
def masks(test_fold) -> dict[int, Tensor]:
    return {row: square(90, 60) for row in range(len(test_fold))}


@pytest.fixture
def flagged(pipeline, monkeypatch):
    """All scans are, and of whatever contrast a lesion is, it counts."""
    monkeypatch.setattr(explanations, "MIN_CONTRAST", 0.0)
    monkeypatch.setattr(type(pipeline), "tau", -1e6)


def test_lesions_of_scans_that_pass_are_left_out(pipeline, test_fold, masks, monkeypatch, flagged):
    monkeypatch.setattr(type(pipeline), "tau", 1e6)
    with pytest.raises(ValueError, match="is flagged when attacked"):
        explanations.measure_lesions(pipeline, test_fold, masks)


@pytest.mark.usefixtures("flagged")
def test_lesions_keep_contrast_and_lose_energy(pipeline, test_fold, masks):
    found = explanations.measure_lesions(pipeline, test_fold, masks)
    assert found["n"] == len(masks) and found["not_flagged"] == 0
    for name in ("contrast_kept", "energy_removed", "t_star"):
        assert found[name]["tenth"] <= found[name]["median"]
    assert found["energy_removed"]["median"] <= 1


@pytest.mark.usefixtures("flagged")
def test_a_purifier_that_does_nothing_keeps_all_and_removes_nothing(
    pipeline, test_fold, masks, monkeypatch
):
    monkeypatch.setattr(pipeline, "purify", lambda x, t_star, seeds: x)
    found = explanations.measure_lesions(pipeline, test_fold, masks)
    assert found["contrast_kept"] == {"tenth": 1.0, "median": 1.0}
    assert found["energy_removed"]["median"] == pytest.approx(0, abs=1e-9)


def test_pointing_is_measured_against_chance(pipeline, test_fold, monkeypatch):
    always = torch.tensor([[0.1, 0.9]]).log()
    monkeypatch.setattr(pipeline, "classifier_logits", lambda x: always)
    whole = {0: torch.ones(SIDE, SIDE, dtype=torch.bool)}
    found = explanations.measure_pointing(pipeline, test_fold, whole)
    assert found["pointing"]["k"] == found["n"] == 1
    assert found["energy_inside"] == pytest.approx(1) and found["by_chance"] == 1
    few = explanations.measure_pointing(pipeline, test_fold, {0: square(90, 60), 1: square(90, 60)})
    assert 0 < few["by_chance"] < 0.3 and few["n"] == 2


def test_painting_counts_falls_of_both_patches(pipeline, test_fold, masks, monkeypatch):
    """A reader that sees the outlined square alone: bright is a tumour."""
    fold = test_fold.thin(2)
    scans = torch.stack([brain() for _ in range(2)])
    for x in scans:
        x[0][square(90, 60)] = 1.0
    fold.scans[:] = (scans[:, 0] * 255).round().to(torch.uint8).numpy()

    def logits(x, seeds):
        level = 20 * (x[:, 0, 95:110, 65:80].mean((1, 2)) - 0.9)
        return torch.stack([-level, level], 1).log_softmax(1)

    monkeypatch.setattr(pipeline, "logits", logits)
    found = explanations.measure_occlusion(pipeline, fold, {0: square(90, 60), 1: square(90, 60)})
    assert found["tumour"]["k"] == 2 and found["elsewhere"]["k"] == 0
    assert found["found"] == 2 and found["without_room"] == found["across_the_midline"] == 0
    across = explanations.measure_occlusion(
        pipeline, fold, {0: square(90, 60), 1: square(90, 60, 110)}
    )
    assert across["across_the_midline"] == 1 and across["tumour"]["n"] == 1


def test_the_table_holds_all_three_rows(pipeline, test_fold, masks, monkeypatch, tmp_path):
    found = {"k": 1, "n": 2, "accuracy": 0.5, "interval": (0.1, 0.9)}
    spread = {"tenth": 0.7, "median": 0.9}
    rows = {
        "lesions": {"n": 2, "contrast_kept": spread, "energy_removed": spread, "t_star": spread},
        "pointing": {"pointing": found, "energy_inside": 0.25, "by_chance": 0.125, "n": 2},
        "painting": {
            "tumour": found,
            "elsewhere": found,
            "found": 9,
            "across_the_midline": 6,
            "without_room": 1,
        },
    }
    store = ResultFile(
        tmp_path / "r.json", "looks", {}, {"machine": machine_facts(torch.device("cpu"))}
    )
    for name, row in rows.items():
        store.row(name, lambda row=row: row)
    text = fill("<!-- results:looks -->\n<!-- /results -->", {"looks-leak-free": store.content})
    assert "| 90.0 / 70.0 | 2 |" in text and "| 25.0 (12.5) | 2 |" in text
    assert text.count("50.0 [10.0 to 90.0] 1/2") == 3
    assert "of 9 tumours that are found, 6 reach across the midline" in text
    assert "and 1 leave no room" in text


def test_without_outlines_there_is_nothing_to_measure(pipeline, test_fold, tmp_path):
    with pytest.raises(ValueError, match="no test scan has an outline"):
        explanations.measure(
            ResultFile(tmp_path / "r.json", "looks", {}, {}), pipeline, test_fold, {}
        )
