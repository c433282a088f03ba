"""Bars, sentence and map of the reasons why a scan was flagged; sentence under the error map."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from core.features import FEATURES
from core.pipeline import MedFedPure
from demo.rendering import wording
from demo.rendering.error_map import RESULTS, describe_error_map
from demo.rendering.flag_reasons import (
    EVIDENCE_STEP,
    MAX_BAR,
    MAX_EVIDENCE,
    MEASUREMENTS,
    describe_evidence_map,
    describe_reason,
    encode_evidence_layer,
    render_flag_reasons,
)


@pytest.fixture(scope="module")
def reading(system: MedFedPure, scan: Tensor) -> Diagnosis:
    """Return a flagged reading: 3 + 1 points raised it, 2 lowered it, -2 is usual."""
    points = dict.fromkeys(FEATURES, 0.0) | {"quiet": 1.0, "plain_match": 3.0, "noise_quiet": -2.0}
    maps = {name: torch.zeros(14, 14) for name in FEATURES}
    maps["plain_match"] = torch.linspace(-1, 6, 196).view(14, 14)
    return replace(
        system.read(scan), contributions=points, evidence=maps, usual_score=-2.0, score=0.0,
        scores={"paper": 4.0, "fused": 0.0}, tau=-0.5, flagged=True,
    )  # fmt: skip


def rows(html: str) -> list[tuple[str, list[float], str, str]]:
    """Return words, lengths of the lowering and raising bar in per cent, points, share."""
    return [
        (
            re.search(r'scope="row">([^<]+)', row)[1],  # type: ignore[index]
            [float(width) for width in re.findall(r"width:([\d.]+)%", row)],
            re.search(r"<b[^>]*>([^<]+)", row)[1],  # type: ignore[index]
            "".join(re.findall(r"<small>([^<]+)", row)),
        )
        for row in re.findall(r"<tr>(.*?)</tr>", html.split("<tbody>")[1])
    ]


def test_every_measurement_has_words_of_its_own() -> None:
    assert tuple(MEASUREMENTS) == FEATURES
    assert len(set(MEASUREMENTS.values())) == len(FEATURES)


def test_bars_are_sorted_and_as_long_as_their_points(reading: Diagnosis) -> None:
    found = rows(render_flag_reasons([("attacked", reading)]))
    pattern, grain = "a pattern along the plain classifier&#x27;s gradient", MEASUREMENTS["quiet"]
    assert found == [
        (pattern, [0.0, 300 / MAX_BAR], "+3.00", "75 %"),
        (MEASUREMENTS["noise_quiet"], [200 / MAX_BAR, 0.0], "-2.00", ""),
        (grain, [0.0, 100 / MAX_BAR], "+1.00", "25 %"),
    ]


def test_bars_that_raise_are_bad_and_those_that_lower_are_good(reading: Diagnosis) -> None:
    html = render_flag_reasons([("attacked", reading)])
    assert html.count('class="mf-meter mf-bad"') == html.count('<b class="mf-bad">+') == 2
    assert html.count('class="mf-meter mf-good"') == html.count('<b class="mf-good">-') == 1


def test_the_printed_sum_is_the_score(reading: Diagnosis) -> None:
    html = render_flag_reasons([("attacked", reading)])
    assert "An average clean scan scores -2.00; these add +2.00: 0.00." in html
    assert "Flagged above -0.50." in html
    assert sum(float(points) for _, _, points, _ in rows(html)) == 2.0


def test_each_reading_has_its_own_section(reading: Diagnosis) -> None:
    html = render_flag_reasons(
        [("<clean>", replace(reading, flagged=False)), ("attacked", reading)]
    )
    assert html.count("<section") == html.count("<table") == 2
    assert "&lt;clean&gt; scan" in html and "<clean>" not in html
    assert (
        html.index("Not flagged") < html.index("Attacked scan") < html.index("Flagged most of all")
    )
    assert render_flag_reasons([]) == ""


def test_the_leading_sentence_names_the_largest_reason(reading: Diagnosis) -> None:
    words = "a pattern along the plain classifier's gradient"
    assert describe_reason(reading) == f"Flagged most of all because of {words}: 75 % of the rise."
    calm = replace(reading, flagged=False, tau=1.5)
    assert describe_reason(calm) == (
        f"Not flagged, 1.50 points short; nearest reason: {words} (+3.0)."
    )
    usual = replace(calm, contributions=dict.fromkeys(FEATURES, -1.0))
    assert describe_reason(usual) == (
        "Not flagged: no measurement is above that of an average clean scan."
    )


def test_the_papers_score_has_one_measurement_and_no_bars(reading: Diagnosis) -> None:
    paper = replace(reading, score_name="paper", score=4.0, tau=3.0)
    html = render_flag_reasons([("clean", paper)])
    assert "has one measurement, the mean squared error of the autoencoder" in html
    assert "<table" not in html and encode_evidence_layer(paper) is None
    assert "which the error map shows" in describe_evidence_map(paper)


def test_the_map_is_sent_in_points_and_is_0_where_usual(reading: Diagnosis) -> None:
    layer = encode_evidence_layer(reading)
    assert layer is not None and layer["type"] == "u2" and layer["shape"] == [14, 14]
    steps = np.frombuffer(base64.b64decode(layer["data"]), "<u2").reshape(14, 14)
    wanted = np.linspace(-1, 6, 196).reshape(14, 14).clip(0)
    assert np.abs(steps * layer["scale"] - wanted).max() <= EVIDENCE_STEP / 2 + 1e-6
    assert wanted.max() > MAX_EVIDENCE  # values beyond the colours are sent too
    assert MEASUREMENTS["plain_match"] in describe_evidence_map(reading)


def test_where_nothing_is_raised_no_map_is_sent(reading: Diagnosis) -> None:
    usual = replace(reading, contributions=dict.fromkeys(FEATURES, -1.0))
    assert encode_evidence_layer(usual) is None
    assert describe_evidence_map(usual).startswith("No map: no measurement is above")


def test_no_number_of_a_layer_wraps_around(reading: Diagnosis) -> None:
    for points, shown in ((60.0, 60.0), (1000.0, 65535 * EVIDENCE_STEP)):
        maps = {**reading.evidence, "plain_match": torch.full((14, 14), points)}
        layer = encode_evidence_layer(replace(reading, evidence=maps))
        assert layer is not None
        steps = np.frombuffer(base64.b64decode(layer["data"]), "<u2")
        assert (steps * layer["scale"] == shown).all()


def test_the_error_maps_figure_is_the_measured_one() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    auroc = rows["plain, eps 0.015"]["scores"]["paper"]["auroc"]
    said = describe_error_map()
    assert said.startswith(wording.ERROR_CAPTION.removesuffix("."))
    assert float(re.search(r"AUROC (\.\d\d)\)\.$", said)[1]) == round(auroc, 2)  # type: ignore[index]


@pytest.mark.parametrize(
    ("auroc", "words"),
    [(0.5149, "hardly better than chance (AUROC .51)"), (0.8, "better than chance (AUROC .80)")],
)
def test_the_error_maps_words_follow_the_figure(tmp_path: Path, auroc: float, words: str) -> None:
    path = tmp_path / "detection.json"
    row = {"scores": {"paper": {"auroc": auroc}}}
    path.write_text(json.dumps({"rows": {"plain, eps 0.015": row}}))
    start = "What the autoencoder could not predict, not disease"
    assert describe_error_map(path) == f"{start}; as a detector {words}."


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"rows": {}}'])
def test_without_the_figure_the_sentence_comes_alone(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "detection.json"
    if content is not None:
        path.write_text(content)
    assert describe_error_map(path) == wording.ERROR_CAPTION
