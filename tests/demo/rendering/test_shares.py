"""Shares of the log-odds: bars to the right side, and numbers that add up."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from core.diagnosis import Diagnosis
from demo.rendering.shares import describe_shares, list_terms, render_shares, round_to_sum

SIDES = (112, 56, 28)


def set_shares(d: Diagnosis, shares: list[float], point: float, overall: float) -> Diagnosis:
    total = sum(shares) + point
    return replace(
        d,
        expert_shares=torch.tensor(shares),
        operating_point=point,
        overall_share=overall,
        tumour_probability=1 / (1 + math.exp(-total)),
    )


def test_the_sentence_by_hand(mapped: Diagnosis) -> None:
    d = set_shares(mapped, [1.83, -0.22, 0.61], -0.3, 0.32)
    assert describe_shares(d, SIDES) == (
        "Expert 1 (fine detail) with +1.83 and expert 3 (rough layout) with +0.61 speak for a "
        "tumour; expert 2 (shape) with -0.22 speaks against; the operating point adds -0.30. "
        "Together: log-odds +1.92, a tumour probability of 87 %. Of the experts' +2.22, +1.90 "
        "come from the tumour maps and +0.32 from global features, which no map shows."
    )
    alone = replace(set_shares(mapped, [-2.0], 0.5, 0.0), tumour_map=None)
    assert describe_shares(alone, (28,)) == (
        "Expert 1 (28 x 28 pixels) with -2.00 speaks against; the operating point adds +0.50. "
        "Together: log-odds -1.50, a tumour probability of 18 %."
    )


def test_a_share_of_zero_is_on_no_side_and_a_sum_of_zero_has_no_sign(mapped: Diagnosis) -> None:
    d = set_shares(mapped, [0.3, -0.4, 0.0], 0.1, 0.0)  # their sum in floats is -5.6e-17
    said = describe_shares(d, SIDES)
    assert said.startswith(
        "Expert 1 (fine detail) with +0.30 speaks for a tumour; expert 2 (shape) with -0.40 speaks "
        "against; expert 3 (rough layout) adds less than 0.01; the operating point adds +0.10. "
        "Together: log-odds +0.00, a tumour probability of 50 %. Of the experts' -0.10, -0.10 come "
        "from"
    )
    assert "+0.00: 50 % tumour" in render_shares([("Clean scan", d)], SIDES)
    none = describe_shares(set_shares(mapped, [0.0, 0.0, 0.0], 0.5, 0.0), SIDES)
    assert "expert 3 (rough layout) add less than 0.01 each; the operating point adds" in none
    assert "speak" not in none
    little = describe_shares(set_shares(mapped, [0.004, 0.3, -0.4], 0.1, 0.0), SIDES)
    assert "expert 1 (fine detail) adds less than 0.01; the operating point adds +0.10" in little


@pytest.mark.parametrize("seed", range(20))
def test_rounded_numbers_add_up_to_the_rounded_sum(seed: int) -> None:
    values = (3 * torch.randn(5, generator=torch.Generator().manual_seed(seed))).tolist()
    rounded = round_to_sum(values)
    assert round(sum(rounded), 2) == round(sum(values), 2)
    assert all(abs(a - b) < 0.01 for a, b in zip(rounded, values, strict=True))


def test_the_shares_of_a_reading_are_its_log_odds(mapped: Diagnosis) -> None:
    p = mapped.tumour_probability
    assert sum(list_terms(mapped)) == pytest.approx(math.log(p / (1 - p)), abs=1e-4)


def test_bars_start_in_the_middle(mapped: Diagnosis) -> None:
    d = set_shares(mapped, [2.0, -1.0, 9.0], 0.0, 0.0)
    html = render_shares([("Clean scan", d)], SIDES)
    bars = re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%">', html)
    assert [(float(x), float(w)) for x, w in bars] == [(50, 25), (37.5, 12.5), (50, 50), (50, 0)]
    assert re.findall(r"<span>([+-][\d.]+)</span>", html) == ["+2.00", "-1.00", "+9.00", "+0.00"]


def test_where_it_cannot_judge_no_share_is_shown(mapped: Diagnosis) -> None:
    far = replace(mapped, novelty=mapped.novelty_limit + 1)
    html = render_shares([("Clean scan", far)], SIDES)
    assert "<span>" not in html and "log-odds +" not in html
    assert html.count("cannot judge") == 5
