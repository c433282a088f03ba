from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.attacks import Step
from core.detector import SCORES
from core.maps.gradcam import grad_cam
from core.pipeline import MedFedPure
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.analysis.explanation import collect_clean_scores, compute_heat_map
from demo.explore import results_view
from demo.rendering import images
from demo.rendering.charts import Mark, draw_curve, draw_histogram
from demo.rendering.explanation import (
    describe_false_alarms,
    describe_rank,
    render_scores,
    render_votes,
)

EndsAt = Callable[[Tensor], tuple[Step, ...]]


@pytest.fixture(scope="module")
def analysis(system: MedFedPure, scan: Tensor, ends_at: EndsAt) -> Analysis:
    attacked = ((scan * 255 + 3).clamp(max=255).round() / 255).float()
    clean, after = system.read(scan), system.read(attacked)
    return Analysis(
        scan,
        AttackSettings(),
        ends_at(attacked),
        clean,
        after,
        12.0,
        clean_scores=collect_clean_scores(system, clean.score_name),
        sides=system.config.moe.sides,
    )


def bars(svg: str, kind: str) -> list[tuple[float, float, float]]:
    """Return (left edge, width, height) of a histogram's bars of one kind."""
    found = re.findall(
        rf'class="{kind}" x="([\d.-]+)" y="[\d.-]+" width="([\d.-]+)" height="([\d.-]+)"', svg
    )
    return [(float(x), float(w), float(h)) for x, w, h in found]


def test_each_reading_is_explained(analysis: Analysis) -> None:
    html = results_view.render_explanation(analysis)
    assert html.count("<li>") == 2 + 2  # of the histogram, and of each reading
    assert "Grad-CAM" not in html and "<img" not in html and "file:" not in html
    only = results_view.render_explanation(replace(analysis, attacked=None))
    assert only.count("<li>") == 2 + 1 and "Attacked scan" not in only
    assert results_view.render_explanation(replace(analysis, clean_scores=None)) == ""
    page = results_view.render(analysis)
    assert page.count(">Expert 1<") == page.count(">Expert 3<") == 2  # shares, and votes


def test_where_it_cannot_judge_no_vote_is_shown(analysis: Analysis) -> None:
    assert analysis.clean
    far = replace(analysis.clean, novelty=analysis.clean.novelty_limit + 1)
    table = render_votes([("Clean", far)], (112, 56, 28))
    assert "tumour" not in table and "cannot judge" in table


def test_votes_and_weights_are_the_readings_own(analysis: Analysis) -> None:
    d = analysis.clean
    assert d is not None
    sure = replace(d, attention=torch.tensor([0.7, 0.2, 0.1]), tumour_probability=0.2)
    sure = replace(sure, expert_probabilities=torch.tensor([0.8, 0.3, 0.004]))
    html = render_votes([("<Clean>", sure)], (112, 56, 28))
    assert re.findall(r"<span>([\d.]+)</span>", html) == ["0.70", "0.20", "0.10"]
    both = render_votes([("Clean", sure), ("Attacked", d)], (112, 56, 28))
    assert both.count("<span>0.70</span>") == 1 and both.count("<td>") == 1 + 2 * 4
    says = re.findall(r'mf-says">([^<]+)<', html)
    assert says == ["tumour 80 %", "no tumour 70 %", "no tumour &gt; 99 %", "no tumour 80 %"]
    assert "<Clean>" not in html and "112 x 112" in html


def test_grad_cam_explains_the_output(system: MedFedPure, analysis: Analysis) -> None:
    d = analysis.clean
    assert d is not None
    e = compute_heat_map(system, d)
    assert e.label == int(d.is_tumour)
    values = grad_cam(system.classifier.model, d.scan_read[None], torch.tensor([e.label])).mixture[
        0
    ]
    torch.testing.assert_close(e.share, values / values.max())
    turned = compute_heat_map(system, replace(d, tumour_probability=1 - d.tumour_probability))
    assert turned.label == 1 - e.label
    assert not torch.allclose(turned.share, e.share)


def test_an_overlay_hides_nothing_where_the_map_is_zero(scan: Tensor) -> None:
    share = torch.zeros(224, 224)
    share[:, 112:] = 1
    url = images.encode_overlay(scan, share)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))).astype(int)
    grey = (scan[0] * 255).round().int().numpy()
    assert (shown[:, :112] == grey[:, :112, None]).all()
    assert (shown[:, 112:, 0] > shown[:, 112:, 2] + 50).all()  # yellow: the highest value


def test_a_bars_area_is_its_share_and_those_above_tau_are_alarms() -> None:
    values, shares, tau = np.array([-3, -2, 0, 1, 2.0, 4]), np.array([0, 0.1, 0.4, 0.7, 0.9, 1]), 3
    svg = draw_histogram(values, shares, tau, [Mark("one", 0.3), Mark("two", 6.0)], "said <&>")
    clean, alarm = bars(svg, "mf-clean"), bars(svg, "mf-alarm")
    unit = clean[0][1] + 0.8  # width of a score of 1, with its gap
    assert [(w + 0.8) / unit for _, w, _ in clean + alarm] == pytest.approx(
        [1, 2, 1, 1, 1, 1], rel=0.01
    )
    areas = [(w + 0.8) / unit * h for _, w, h in clean + alarm]
    assert [a / sum(areas) for a in areas] == pytest.approx(
        [0.1, 0.3, 0.3, 0.2, 0.05, 0.05], rel=0.02
    )
    line = float(re.search(r'class="mf-tau" x1="([\d.]+)"', svg)[1])  # type: ignore[index]
    assert max(x for x, *_ in clean) < line <= min(x for x, *_ in alarm)
    one, two = (float(x) for x in re.findall(r'class="mf-mark" x1="([\d.]+)"', svg))
    assert one < line < two  # on one axis with the threshold
    assert 'aria-label="said &lt;&amp;&gt;"' in svg


def test_scores_without_spread_have_no_bars() -> None:
    svg = draw_histogram(np.array([0.5]), np.array([1.0]), 1.0, [], "")
    assert not bars(svg, "mf-clean") and 'class="mf-tau"' in svg


@pytest.mark.parametrize("value", [-50.0, 0.0, 50.0])
def test_every_mark_is_inside_the_chart(value: float) -> None:
    svg = draw_histogram(np.linspace(0, 1, 11), np.linspace(0, 1, 11), 0.95, [Mark("x", value)], "")
    width = float(re.search(r'viewBox="0 0 (\d+)', svg)[1])  # type: ignore[index]
    assert all(0 <= float(x) <= width for x in re.findall(r' x\d?="([\d.-]+)"', svg))


def test_a_curve_rises_with_its_values_and_marks_its_step() -> None:
    svg = draw_curve([0.1, 0.5, 0.9], 1, 0, 1, "")
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert heights == sorted(heights, reverse=True)  # y points down
    kinds = re.findall(r'circle class="([^"]+)"', svg)
    assert kinds == ["mf-dot", "mf-now", "mf-dot"]


def test_the_false_alarm_rate_is_counted_and_said(analysis: Analysis) -> None:
    assert "about 5 score above" in describe_false_alarms(0.05)
    d, e = analysis.clean, analysis.clean_scores
    assert d is not None and e is not None and e.alarm_share == pytest.approx(0.05)
    html = render_scores([("clean scan", d)], e)
    assert (
        "eleven rounded quantiles of the clean validation scans" in html
        and "about 5 score above" in html
    )
    said = describe_rank("clean scan", replace(d, score=3.0, confidence=1.0, flagged=True))
    assert said.startswith("Clean scan: 3.0, higher than any") and "attack suspected" in said
    said = describe_rank("clean scan", replace(d, score=-7.0, confidence=0.004, flagged=False))
    assert "lower than nearly all" in said and "not suspected" in said


def test_the_histogram_is_of_the_deciding_score(system: MedFedPure, analysis: Analysis) -> None:
    e = analysis.clean_scores
    assert e is not None
    stored = system.detector.quantiles[SCORES.index("fused")]
    assert (e.values == stored.numpy()).all()
    assert e.shares == pytest.approx(np.linspace(0, 1, 11))
    e.values[0] = -99
    assert float(stored[0]) != -99  # a copy: nobody can turn the detector from here
