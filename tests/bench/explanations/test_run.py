"""The command on a small system: levels of validation scans, attacked maps, deletion, tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.explanations.maps import GRAD_CAM, TUMOUR_MAP, find_maps
from bench.explanations.outlined import Outlined, collect_outlined
from bench.explanations.paired import compare_weights, mark_robust
from bench.explanations.run import NO_MAP, find_levels, measure, show_scans
from bench.explanations.tables import TABLES
from bench.provenance import machine_facts
from bench.report.write import fill
from bench.result_file import ResultFile
from core.attacks import APGD
from core.pipeline import MedFedPure, build
from tests.small_system import small_config
from train.data.dataset import ScanDataset

CPU = torch.device("cpu")


def square(top: int, left: int, side: int = 24) -> Tensor:
    mask = torch.zeros(224, 224, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def outline(fold: ScanDataset) -> Outlined:
    """Outline the same square in each tumour."""
    return Outlined(fold, {row: square(90, 60) for row, y in enumerate(fold.labels.tolist()) if y})


@pytest.fixture(scope="module")
def mapped() -> MedFedPure:
    """An untrained system whose experts make tumour maps."""
    torch.manual_seed(1)
    plain = small_config()
    return build(replace(plain, moe=replace(plain.moe, map_width=4)), {"preset": "tiny"})


@pytest.fixture(scope="module")
def measured(mapped, test_fold, validation, tmp_path_factory) -> ResultFile:
    facts = {"machine": machine_facts(CPU)}
    path = tmp_path_factory.mktemp("rows") / "r.json"
    store = ResultFile(path, "explanations", {}, facts)
    measure(store, mapped, outline(test_fold), outline(validation), 4, steps=1, batch_size=4)
    return store


def test_the_map_is_the_one_that_a_reading_shows(mapped, test_fold) -> None:
    x = outline(test_fold).scans[:2]
    drawn = find_maps(mapped.classifier)[TUMOUR_MAP](x)
    for cells, one in zip(drawn.cells, mapped.read_batch(x, [0, 1]), strict=True):
        if not one.t_star:  # not purified: the mixture reads the same scan
            assert torch.allclose(cells, one.tumour_map, atol=1e-5)
    output = mapped.classifier.model.outputs(x)
    by_hand = sum(
        output.attention[:, k, None, None] * m.probability for k, m in enumerate(output.maps)
    )
    assert torch.allclose(drawn.cells, by_hand, atol=1e-6)
    assert drawn.pixels.shape == (2, 224, 224)


def test_the_levels_are_those_of_validation_scans(measured, mapped, test_fold, validation) -> None:
    held = measured.content["rows"]["levels"]["maps"]
    maps = find_maps(mapped.classifier)
    assert held == find_levels(maps, outline(validation), 4, CPU)
    assert held[TUMOUR_MAP]["outlined"] == int(validation.labels.sum())
    for key in ("clean", "apgd", "map"):
        row = measured.content["rows"][key]
        for name in (TUMOUR_MAP, GRAD_CAM):
            assert row["maps"][name]["level"] == held[name]["level"]
    assert held != find_levels(maps, outline(test_fold), 4, CPU)


def test_rows_hold_figures_of_every_attack(measured, mapped, test_fold) -> None:
    rows = measured.content["rows"]
    deleted = [f"deletion: {key}" for key in ("clean", "apgd", "map")]
    assert set(rows) == {"levels", "clean", "apgd", "map", *deleted}
    assert (rows["clean"]["n"], rows["apgd"]["n"]) == (len(test_fold), 4)
    assert rows["clean"]["attack"] == {} and rows["map"]["attack"] == {"eps": 0.015, "steps": 1}
    block = rows["clean"]["maps"][TUMOUR_MAP]["sources"]["br35h"]
    assert block["pointing"]["n"] == block["sizes"]["medium"]["dice"]["n"] == 4
    assert block["empty"]["n"] == len(test_fold) - 4
    some = outline(test_fold).thin_by_source(4)
    assert len(some.fold) == 4 and set(some.masks) == set(some.fold.labels.nonzero()[:, 0].tolist())
    found = sum(mapped.classifier(some.scans[[row]]).argmax(1).item() for row in some.masks)
    assert rows["deletion: clean"]["found"] == found
    kept = [rows[key]["answers"]["sources"]["br35h"] for key in ("clean", "map")]
    assert kept[1]["n"] == 4


def test_scans_are_shown_as_each_attack_makes_them(mapped, test_fold) -> None:
    some = outline(test_fold).thin_by_source(3)
    x, y, seeds = some.fold.batches(3, CPU)[0]
    shown = show_scans(mapped.classifier, some, "apgd", 2, 2, CPU)
    assert torch.allclose(shown, APGD(0.015, 2)(mapped.classifier, x, y, seeds), atol=1e-6)
    moved = show_scans(mapped.classifier, some, "map", 2, 2, CPU)
    answers = [mapped.classifier(z).argmax(1) for z in (x, moved)]
    assert torch.equal(*answers) and not torch.equal(moved, x)
    assert torch.equal(show_scans(mapped.classifier, some, "clean", 2, 2, CPU), x)


def test_tables_show_the_rows(measured) -> None:
    results = {"explanations-patients": measured.content}
    text = {name: render(results) for name, render in TABLES.items()}
    for attack in ("clean", "APGD", "attack on the map alone"):
        assert f"| br35h | {attack} | tumour map |" in text["explanations"]
        assert f"| mean of br35h | {attack} | Grad-CAM |" in text["explanations"]
        assert (
            f"| patients | br35h | {attack} | tumour map | medium |"
            in (text["explanations-tumours"])
        )
        assert f"| patients | {attack} | mask |" in text["explanations-deletion"]
    row = measured.content["rows"]["clean"]["maps"][TUMOUR_MAP]["mean"]
    ends = f"| {100 * row['empty']['value']:.1f} [", f" | {100 * row['chance']['value']:.1f} |"
    (line,) = [
        x
        for x in text["explanations"].splitlines()
        if x.startswith("| mean of br35h | clean | tumour map |")
    ]
    assert ends[0].rstrip("[").rstrip() in line and line.endswith(ends[1])
    assert "small below 2.0 %" in text["explanations-tumours"]
    assert text["explanations-paired"] == "No other weights were compared."
    missing = fill("<!-- results:explanations -->\n<!-- /results -->", {})
    assert "Not measured yet" in missing


def test_weights_without_a_map_are_measured_by_grad_cam_alone(
    pipeline, test_fold, validation, store
) -> None:
    measure(store, pipeline, outline(test_fold), outline(validation), 2, steps=1, batch_size=4)
    rows = store.content["rows"]
    assert store.content["warnings"] == [NO_MAP]
    assert list(rows["clean"]["maps"]) == [GRAD_CAM] and "map" not in rows
    assert NO_MAP in TABLES["explanations"]({"explanations-patients": store.content})


def test_two_weights_are_compared_on_the_same_scans(mapped, pipeline, test_fold) -> None:
    some = outline(test_fold)
    pair = (mapped.classifier, pipeline.classifier)
    found = compare_weights(pair, some, 1, 4)
    first, second = (mark_robust(model, some, 1, 8) for model in pair)
    assert found["only_first"] == int((first & ~second).sum())
    assert found["only_second"] == int((second & ~first).sum())
    assert [block["k"] for block in found["worst"]] == [int(first.sum()), int(second.sum())]
    x, y, seeds = some.fold.batches(8, CPU)[0]
    for model, right in zip(pair, (first, second), strict=True):
        tried = [x, *(APGD(0.015, 1, loss=n)(model, x, y, seeds) for n in ("ce", "margin"))]
        marked = torch.stack([model(z).argmax(1) == y for z in tried]).all(0)
        assert torch.equal(right, marked)


def test_tumours_without_a_mask_are_left_out(test_fold, data) -> None:
    kept = collect_outlined(test_fold, data[0])  # a folder without outlines
    assert kept.masks == {} and int(kept.fold.labels.sum()) == 0
    assert len(kept.fold) == int((test_fold.labels == 0).sum())


def test_without_outlines_there_is_nothing_to_measure(pipeline, test_fold, store) -> None:
    with pytest.raises(ValueError, match="no test scan has an outline"):
        measure(store, pipeline, Outlined(test_fold, {}), outline(test_fold), 2)
