"""Trajectory of the attack, and the smallest eps."""

from __future__ import annotations

import re
from dataclasses import replace

import gradio as gr
import pytest
import torch
from torch import Tensor

from core.attacks import BisectionStep
from core.pipeline import MedFedPure
from demo.analysis.analysis import Analysis
from demo.analysis.attack import MAX_EPS, AttackSettings, find_smallest_eps, iterate_attack
from demo.explore import attack_trajectory
from demo.explore.attack_trajectory import NO_ANALYSIS_MESSAGE, describe_smallest, search, show
from demo.explore.cancellation import RequestGeneration


@pytest.fixture(scope="module")
def analysis(system: MedFedPure, scan: Tensor) -> Analysis:
    settings = AttackSettings(steps=3, aim="mixture")
    return Analysis(scan, settings, steps=tuple(iterate_attack(system, scan, settings)))


def test_each_step_is_shown_with_its_own_figures(analysis: Analysis) -> None:
    box, slider, last, answer = show(analysis)
    assert box["visible"] and slider["maximum"] == slider["value"] == 3 and answer == ""
    shown = [attack_trajectory._render_step(analysis, i) for i in range(4)]
    assert len(set(shown)) == 4 and shown[-1] == last
    for i, (html, step) in enumerate(zip(shown, analysis.steps, strict=True)):
        assert f"Step {i} of 3" in html and f"loss {float(step.loss[0]):.2f}" in html
        assert "The trained mixture" in html and "brightest from 4 levels on" in html


@pytest.mark.parametrize("nothing", [None, "without an attack"])
def test_without_an_attack_nothing_is_shown(scan: Tensor, nothing: str | None) -> None:
    found = None if nothing is None else Analysis(scan, AttackSettings(kind="none"))
    box, _, view, answer = show(found)
    assert (
        not box["visible"]
        and view == answer == ""
        and attack_trajectory._render_step(found, 0) == ""
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_attack_is_searched_with_the_visitor_s_settings(
    system: MedFedPure, scan: Tensor, norm: str
) -> None:
    settings = AttackSettings(norm=norm, truth="tumour", aim="mixture")
    probes = list(find_smallest_eps(system, scan, settings))
    last = probes[-1]
    if last.high is None:
        assert [p.eps for p in probes] == [0, MAX_EPS[norm]]
    elif last.high > 0:
        assert last.x_adv is not None and last.high - last.low <= MAX_EPS[norm] / 256
        turned = system.classifier_logits(last.x_adv).argmax(1)
        assert turned.item() == 0  # what the truth names is left


def test_the_answer_says_what_was_found_and_no_more() -> None:
    linf, l2 = AttackSettings(), AttackSettings(norm="l2", aim="defence")
    x = torch.zeros(1, 1, 4, 4)
    assert "No attack is needed" in describe_smallest(
        BisectionStep(0.0, 0.0, 0.0, x), 1, linf, done=True
    )
    assert "0.0600 = 15.3/255" in describe_smallest(
        BisectionStep(0.06, 0.06, None, None), 2, linf, done=True
    )
    answer = describe_smallest(BisectionStep(0.004, 0.003, 0.004, x), 8, linf, done=True)
    assert "plain classifier: 0.0040 = 1.0/255, in 8 attacks" in answer and "upper bound" in answer
    assert "between 0.30 and 0.40" in describe_smallest(
        BisectionStep(0.4, 0.3, 0.4, x), 1, l2, done=False
    )


def test_the_search_stops_where_its_visitor_has_gone_on(
    system: MedFedPure, analysis: Analysis
) -> None:
    generation = RequestGeneration()
    going = search(system, generation, analysis)
    assert "attack" in next(going)
    generation.end_reading()
    assert list(going) == [gr.skip()]
    assert [re.sub("<[^>]+>", "", line) for line in search(system, generation, None)] == [
        NO_ANALYSIS_MESSAGE
    ]
    assert NO_ANALYSIS_MESSAGE in next(search(system, generation, replace(analysis, steps=())))
