from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.attacks import Step
from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure
from core.scan import read_scan
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.explore import results_view

EndsAt = Callable[[Tensor], tuple[Step, ...]]


@pytest.fixture
def analysis(system: MedFedPure, scan: Tensor, ends_at: EndsAt) -> Analysis:
    attacked = ((scan * 255 + 3).clamp(max=255).round() / 255).float()
    clean, after = system.read(scan), system.read(attacked)
    sides = system.config.moe.sides
    return Analysis(scan, AttackSettings(), ends_at(attacked), clean, after, 12.0, sides=sides)


def list_outputs(html: str) -> list[str]:
    return re.findall(r'data-says="([^"]+)"', html)


def set_outputs(d: Diagnosis, undefended: float, defended: float) -> Diagnosis:
    return replace(d, tumour_probability_undefended=undefended, tumour_probability=defended)


def test_every_promised_heading_is_there(analysis: Analysis) -> None:
    html = results_view.render(analysis)
    for title in (
        "Attack detector", results_view.EXPERTS, "Model output",
        "Without defence", "With defence",
    ):  # fmt: skip
        assert title in html
    assert "file://" not in html


def test_four_outputs_and_which_flipped(analysis: Analysis) -> None:
    assert analysis.clean and analysis.attacked
    shown = replace(
        analysis,
        clean=set_outputs(analysis.clean, 0.9, 0.8),
        attacked=set_outputs(analysis.attacked, 0.2, 0.7),
    )
    html = results_view.render(shown)
    assert list_outputs(html) == ["tumour", "tumour", "no tumour", "tumour"]
    assert html.count('class="mf-turned"') == 1
    story = results_view.render_story(shown)
    assert "The attack succeeded" in story and "The defence held" in story
    for flagged, found in ((True, "flagged"), (False, "missed")):
        story = results_view.render_story(
            replace(shown, attacked=replace(shown.attacked, flagged=flagged))
        )
        words = "The attack changed no pixel by more than 3 of 255 levels. The detector"
        assert f"{words} {found} it." in story
    lost = replace(shown, attacked=set_outputs(analysis.attacked, 0.2, 0.3))
    assert "The defence failed" in results_view.render_story(lost)


def test_the_detector_s_errors_are_shown(analysis: Analysis) -> None:
    assert analysis.clean and analysis.attacked
    wrong = replace(
        analysis,
        clean=replace(analysis.clean, flagged=True),
        attacked=replace(analysis.attacked, flagged=False),
    )
    html = results_view.render(wrong)
    assert "false alarm" in html and "attack missed" in html


def test_the_download_is_the_attacked_scan(analysis: Analysis) -> None:
    html = results_view.render(analysis)
    link = re.search(r'download="attacked-scan.png" href="data:image/png;base64,([^"]+)"', html)
    assert link and analysis.attacked_scan is not None
    assert torch.equal(read_scan(base64.b64decode(link[1])), analysis.attacked_scan)


def test_the_report_holds_settings_and_figures(analysis: Analysis) -> None:
    html = results_view.render(replace(analysis, info={"commit": "abc"}))
    link = re.search(r"data:application/json;base64,([^\"]+)", html)
    assert link
    report = json.loads(base64.b64decode(link[1]))
    assert report["attack"]["eps"] == 0.015 and report["attack"]["largest_change_levels"] == 3
    assert report["clean"]["t_star"] == analysis.clean.t_star  # type: ignore[union-attr]
    assert report["system"] == {"commit": "abc"} and "clinical" in report["notice"]


def test_parts_that_are_not_ready_say_so(analysis: Analysis) -> None:
    nothing = replace(analysis, clean=None, attacked=None, steps=())
    html = results_view.render(nothing)
    assert results_view.render_story(nothing) == ""
    empty = results_view.render_empty("Choose a scan.")
    assert all(words in empty for card in results_view.EMPTY_CARDS for words in card)
    assert "&ndash;" in html and "download" not in html and list_outputs(html) == []


def test_sentences_are_escaped() -> None:
    assert "<script" not in results_view.render_empty("<script>alert(1)</script>")


def test_where_it_cannot_judge_no_class_is_shown(analysis: Analysis) -> None:
    assert analysis.clean and analysis.attacked
    far = {"novelty": analysis.clean.novelty_limit + 1}
    known = set_outputs(analysis.clean, 0.9, 0.8)
    strange = replace(set_outputs(analysis.attacked, 0.2, 0.3), **far)
    shown = replace(analysis, clean=known, attacked=strange)
    assert list_outputs(results_view.render(shown)) == [
        "tumour", "tumour", "no tumour", "cannot judge"
    ]  # fmt: skip
    story = results_view.render_story(shown)
    assert "Attacked scan: cannot judge" in story and "defence failed" not in story
    shown = replace(shown, clean=replace(known, **far))
    html, story = results_view.render(shown), results_view.render_story(shown)
    assert list_outputs(html) == ["tumour", "cannot judge", "no tumour", "cannot judge"]
    assert "Clean scan: cannot judge" in story
    assert "does no harm" not in story and "flipped" in html  # the plain classifier's own output
