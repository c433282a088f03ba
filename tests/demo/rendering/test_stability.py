"""Stability in words: three outcomes, and no answer to rely on where a small change flips it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure
from demo.rendering.stability import TOO_SLOW, describe_flip, describe_stability, render_flips
from demo.rendering.stability_cost import NOT_MEASURED, describe_cost


@pytest.fixture(scope="module")
def diagnosis(tiny_system: MedFedPure, scan: Tensor) -> Diagnosis:
    return tiny_system.read(scan)


def make(d: Diagnosis, stable: bool | None, distance: float | None) -> Diagnosis:
    flipped = None if distance is None else (d.scan + distance).clamp(0, 1)
    return replace(
        d, stable=stable, flip_distance=distance, flipped=flipped, stability_radius=0.0075
    )


@pytest.mark.parametrize(
    ("stable", "radius", "words"),
    [
        (True, 0.015, "stable up to 0.015"),
        (True, float(torch.tensor(0.0075)), "stable up to 0.0075"),
        (False, 0.004, "would flip within 0.0075"),
        (None, None, TOO_SLOW),
    ],
)
def test_the_outcomes(stable: bool | None, radius: float | None, words: str) -> None:
    assert describe_stability(stable, radius, 0.0075) == words


def test_an_answer_that_flips_is_named_with_the_size_of_the_change(diagnosis: Diagnosis) -> None:
    said = describe_flip("attacked", make(diagnosis, False, 0.004))
    assert said.startswith("Attacked scan: do not rely on ") and "1.0 of 255 levels" in said
    assert "read otherwise" in describe_flip("clean", make(diagnosis, False, None))
    assert describe_flip("clean", make(diagnosis, True, 0.011)) == ""
    assert describe_flip("clean", make(diagnosis, None, None)) == ""


def test_the_nearest_other_answer_can_be_looked_at(diagnosis: Diagnosis) -> None:
    html = render_flips([("clean", make(diagnosis, True, 0.011))])
    assert html.count("<img") == 3 and "2.8 of 255 levels" in html
    assert render_flips([("clean", make(diagnosis, True, None))]) == ""


def test_the_cost_is_that_of_the_nearest_measured_radius(tmp_path: Path) -> None:
    assert describe_cost(0.0075, tmp_path) == NOT_MEASURED

    def shares(refused: float, silent: float) -> dict[str, dict[str, float]]:
        return {
            "clean_refused": {"value": refused, "n": 300},
            "worst_silent": {"value": silent, "n": 300},
        }

    by_radius = {"0": shares(0, 0.16), "0.0075": shares(0.05, 0.08), "0.015": shares(0.13, 0.02)}
    folder = tmp_path / "measured"
    folder.mkdir()
    text = json.dumps({"rows": {"outcomes": {"by_radius": by_radius}}})
    (folder / "stability-patients.json").write_text(text)
    said = describe_cost(0.008, folder)
    assert "Measured at 0.0075 on 300 test scans" in said
    assert "5 % of clean scans" in said and "8 % silently wrong, and 16 % where" in said
    assert "13 % of clean scans" in describe_cost(0.03, folder)
    assert "5 % of clean scans" in describe_cost(0.001, folder)
