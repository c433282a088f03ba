"""Stability in words: three outcomes, and no answer to rely on where a small change flips it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from core.interval import Certificate
from core.pipeline import MedFedPure
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.explore import results_view
from demo.explore.controls import render_d_note
from demo.rendering import stability
from demo.rendering.stability import describe, describe_flip, render_flips
from demo.rendering.stability_cost import NOT_MEASURED, describe_cost
from demo.rendering.verdicts import collect_verdicts


@pytest.fixture(scope="module")
def diagnosis(tiny_system: MedFedPure, scan: Tensor) -> Diagnosis:
    return tiny_system.read(scan)


def make(
    d: Diagnosis, stable: bool | None, distance: float | None, *, turns: bool = False
) -> Diagnosis:
    """Return a reading 'tumour' with the outcome of its search."""
    flipped = None if distance is None else (d.scan + distance).clamp(0, 1)
    return replace(
        d, tumour_probability=0.9, tumour_probability_unpurified=0.2 if turns else 0.9,
        stable=stable, flip_distance=distance, flipped=flipped, stability_radius=0.0075,
        stable_radius=None if stable is None else 0.0150001 if stable else 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stable", "turns", "words"),
    [
        (True, False, "stable up to 0.015"),
        (False, False, "would flip within 0.0075"),
        (False, True, "turned by purifying"),
        (None, False, "stability not tried: this machine is too slow"),
    ],
)
def test_the_outcomes(diagnosis: Diagnosis, stable: bool | None, turns: bool, words: str) -> None:
    d = make(diagnosis, stable, None if stable else 0.0075, turns=turns)
    assert describe(d) == words
    assert describe(replace(d, novelty=d.novelty_limit + 1)) == ""


def test_an_answer_that_flips_is_named_with_the_size_of_the_change(diagnosis: Diagnosis) -> None:
    said = describe_flip("attacked", make(diagnosis, False, 0.004))
    assert said.startswith("Attacked scan: do not rely on ") and "1.0 of 255 levels" in said
    for distance in (0.0075, float(torch.tensor(0.0075))):  # the whole radius
        assert "1.9 of 255 levels" in describe_flip("clean", make(diagnosis, False, distance))
    turned = describe_flip("clean", make(diagnosis, False, 0.004, turns=True))
    assert turned.endswith("without purifying the answer is another.")
    assert describe_flip("clean", make(diagnosis, True, 0.011)) == ""
    assert describe_flip("clean", make(diagnosis, None, None)) == ""
    far = replace(make(diagnosis, False, 0.004), novelty=diagnosis.novelty_limit + 1)
    assert describe_flip("clean", far) == ""


def test_an_answer_not_to_rely_on_comes_first_and_is_not_praised(diagnosis: Diagnosis) -> None:
    attacked = make(diagnosis, False, 0.004)
    for clean in (make(diagnosis, True, None), attacked):
        analysis = Analysis(diagnosis.scan, AttackSettings("none"), clean=clean)
        tones = [tone for tone, _ in collect_verdicts(analysis)]
        assert (tones[0] == "bad") == (clean is attacked)
        assert "good" not in tones or clean is not attacked
    html = results_view.render(replace(analysis, clean=attacked, sides=(28, 14)))
    assert '<small class="mf-stability mf-bad">would flip within 0.0075</small>' in html
    assert "This is no proof." in html
    assert "<figure>" in render_flips([("clean", attacked)])


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
    assert "5 % of clean scans" in said
    assert "8 % get a wrong answer that is stable; 16 % get a wrong" in said
    assert "13 % of clean scans" in describe_cost(0.014, folder)
    assert "5 % of clean scans" in describe_cost(0.001, folder)
    assert describe_cost(0.03, folder) == "Measured up to 0.015 alone."
    assert render_d_note(None) == "" and "1.9/255" in render_d_note(0.0075)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (Certificate(1, 0.01239), "proven up to 0.0123"),  # a proof is not rounded up
        (Certificate(1, 0.00004), "not proven"),
        (Certificate(1, 0.0), "not proven"),
        (Certificate(0, 0.02), "not proven: the second classifier says “no tumour”"),
        (None, ""),
    ],
)
def test_what_is_proven_is_said_of_the_shown_answer(
    diagnosis: Diagnosis, certificate: Certificate | None, words: str
) -> None:
    d = replace(diagnosis, novelty=-9.0, novelty_limit=0.0, tumour_probability=0.9)
    assert stability.describe_proof(d, certificate) == words
    shown = stability.render_proof(d, certificate)
    assert ("mf-lock" in shown) == words.startswith("proven") and words in shown
    refused = replace(d, novelty=1.0)
    assert stability.render_proof(refused, certificate) == ""
