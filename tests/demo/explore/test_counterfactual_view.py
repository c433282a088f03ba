"""Both classifiers' changes are shown, and a newer request stops the search."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.pipeline import MedFedPure
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.analysis.counterfactual import SEARCH, search_changes
from demo.explore import counterfactual_view
from demo.explore.cancellation import RequestGeneration
from demo.rendering.counterfactual import LABEL, describe_change, render_changes


@pytest.fixture(scope="module")
def analysis(system: MedFedPure, scan: Tensor) -> Analysis:
    return Analysis(scan, AttackSettings("none"), clean=system.read(scan))


def test_each_classifier_gets_a_change_of_its_own(system: MedFedPure, scan: Tensor) -> None:
    *_, changes = search_changes(system, scan)
    assert [change.classifier for change in changes] == ["mixture", "plain classifier"]
    for change, logits in zip(
        changes, (system.classifier_logits, system.plain_logits), strict=True
    ):
        before, after = (float(logits(x[None]).exp()[0, 1]) for x in (scan, change.scan))
        assert change.before == pytest.approx(before, abs=1e-5)
        assert change.after == pytest.approx(after, abs=1e-4)
        assert (change.scan - scan).abs().max() <= SEARCH.eps + 1e-6


def test_the_pictures_say_that_the_model_drew_them(system: MedFedPure, scan: Tensor) -> None:
    *_, changes = search_changes(system, scan)
    html = render_changes(scan, changes)
    assert html.count("<img") == 5 and LABEL in html
    turned = replace(changes[0], before=0.2, after=0.97, scan=(scan + 0.1).clamp(0, 1))
    said = describe_change(scan, turned)
    assert "“no tumour” becomes “tumour” (97 %)" in said and "at most 26 of 255 levels" in said
    assert "no smooth change of at most 51" in describe_change(scan, replace(turned, after=0.3))


def test_a_newer_request_stops_the_search(system: MedFedPure, analysis: Analysis) -> None:
    generation = RequestGeneration()
    running = counterfactual_view.search(system, generation, analysis)
    first = str(next(running))
    assert "Mixture: not done yet." in first and "was found" not in first
    generation.end()
    rest = list(running)
    assert len(rest) == 1 and "img" not in str(rest)


def test_without_an_analysis_it_says_so(system: MedFedPure) -> None:
    (said,) = counterfactual_view.search(system, RequestGeneration(), None)
    assert counterfactual_view.NO_ANALYSIS_MESSAGE in said
    box, view = counterfactual_view.show(None)
    assert box["visible"] is False and view == ""


def test_no_class_is_named_where_the_system_cannot_judge(analysis: Analysis) -> None:
    assert analysis.clean is not None
    assert counterfactual_view.show(analysis)[0]["visible"] is True
    far = replace(analysis.clean, novelty=analysis.clean.novelty_limit + 1)
    assert counterfactual_view.show(replace(analysis, clean=far))[0]["visible"] is False


def test_a_failure_is_told(system: MedFedPure, analysis: Analysis) -> None:
    broken = replace(analysis, scan=torch.zeros(1, 3, 3))
    *_, last = counterfactual_view.search(system, RequestGeneration(), broken)
    assert counterfactual_view.FAILURE_MESSAGE in last
