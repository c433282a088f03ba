"""Tumour map in words, and as layers that pass no threshold by rounding."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.diagnosis import Diagnosis
from demo.analysis.regions import Regions, find_regions
from demo.rendering.tumour_map import (
    THRESHOLDS,
    build_map_layers,
    describe_regions,
    describe_where,
    name_place,
    summarize_map,
)


def test_regions_in_words() -> None:
    one = Regions(1, 30, 0.02, 0.93, (0.2, 0.3))
    assert describe_regions(one, 0.5) == (
        "One region above 50 %: upper left of the picture, 2 % of the head; the highest is 93 %."
    )
    several = Regions(3, 60, 0.045, 0.999, (0.5, 0.9))
    assert describe_regions(several, 0.25) == (
        "3 regions above 25 %: the largest lower middle of the picture, "
        "together 4 % of the head; the highest is above 99 %."
    )
    none = Regions(0, 0, 0.0, 0.12, (0.5, 0.5))
    assert describe_regions(none, 0.5) == "Nowhere above 50 %; the highest is 12 %."
    assert describe_regions(replace(none, peak=0.002), 0.5).endswith("the highest is below 1 %.")


def test_regions_outside_the_head_in_words() -> None:
    one = Regions(1, 4, 0.0, 0.93, (0.02, 0.5))
    assert describe_regions(one, 0.5) == (
        "One region above 50 %: left of the picture, outside the head; the highest is 93 %."
    )
    assert describe_regions(replace(one, count=2), 0.5) == (
        "2 regions above 50 %: the largest left of the picture, all outside the head; the highest "
        "is 93 %."
    )


@pytest.mark.parametrize(
    ("place", "words"),
    [((0.5, 0.5), "middle"), ((0.1, 0.5), "left"), ((0.9, 0.1), "upper right"),
     ((0.45, 0.8), "lower middle"), ((0.59, 0.5), "right")],
)  # fmt: skip
def test_places(place: tuple[float, float], words: str) -> None:
    assert name_place(*place) == words


def test_layers_and_words_agree_at_every_threshold(mapped: Diagnosis) -> None:
    assert mapped.tumour_map is not None and mapped.expert_maps is not None
    ramp = torch.linspace(0, 1, 56 * 56).view(56, 56)
    d = replace(mapped, tumour_map=ramp)
    found = build_map_layers("clean", d)
    assert len(found["clean_where"]) == 1 + len(d.expert_maps)
    layer = found["clean_map0"]
    cells = np.frombuffer(base64.b64decode(layer["data"]), np.uint8).reshape(layer["shape"])
    for k, threshold in enumerate(THRESHOLDS):
        seen = cells >= round(threshold / layer["scale"])
        assert seen.sum() == int((ramp >= threshold).sum())
        assert found["clean_where"][0][k].startswith(f"One region above {threshold * 100:.0f} %")


def test_a_cell_at_the_threshold_is_in_layer_and_words(mapped: Diagnosis) -> None:
    cells = torch.zeros(56, 56)
    cells[5, 5] = 0.35
    found = build_map_layers("clean", replace(mapped, tumour_map=cells))
    layer = np.frombuffer(base64.b64decode(found["clean_map0"]["data"]), np.uint8)
    assert layer.max() == 70
    at = THRESHOLDS.index(0.35)
    assert found["clean_where"][0][at].startswith("One region above 35 %")
    assert found["clean_where"][0][at + 1] == "Nowhere above 40 %; the highest is 35 %."


def test_without_a_map_or_judgement_nothing_is_located(mapped: Diagnosis) -> None:
    none = replace(mapped, tumour_map=None, expert_maps=None)
    assert find_regions(none) is None and describe_where(none) == ""
    assert build_map_layers("clean", none) == {}
    far = replace(mapped, novelty=mapped.novelty_limit + 1)
    assert describe_where(far) == ""
    assert list(build_map_layers("clean", far)) == ["clean_where"]
    assert "cannot judge" in build_map_layers("clean", far)["clean_where"]


def test_a_map_is_summarised_by_number_and_area_of_its_regions(mapped: Diagnosis) -> None:
    cells = torch.zeros(56, 56)
    found = summarize_map(replace(mapped, tumour_map=cells))
    assert (found["tumour_regions"], found["tumour_area"]) == (0, 0.0)
    cells[0, 0] = cells[0, 55] = 0.8  # corners, outside the head
    found = summarize_map(replace(mapped, tumour_map=cells))
    assert (found["tumour_regions"], found["tumour_area"]) == (2, 0.0)
    assert "all outside the head" in found["where"]
    far = replace(mapped, tumour_map=cells, novelty=mapped.novelty_limit + 1)
    assert summarize_map(far) == {"where": "", "tumour_regions": None, "tumour_area": None}


def test_where_a_real_reading_sees_it(mapped: Diagnosis) -> None:
    cells = torch.zeros(56, 56)
    cells[20:24, 40:44] = 0.8
    words = describe_where(replace(mapped, tumour_map=cells))
    assert words.startswith("One region above 50 %: upper right of the picture, ")
    assert words.endswith("% of the head; the highest is 80 %.")
