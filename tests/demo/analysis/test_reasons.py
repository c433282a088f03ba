"""Reasons of a score: what raised it, what lowered it, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.features import FEATURES
from core.pipeline import MedFedPure
from demo.analysis.reasons import Reason, find_reasons


def test_reasons_are_sorted_by_size_and_shares_are_of_one_sign(
    system: MedFedPure, scan: Tensor
) -> None:
    points = dict.fromkeys(FEATURES, 0.0)
    points |= {"quiet": 1.0, "plain_match": 3.0, "residual_net": -0.5, "noise_quiet": -1.5}
    maps = {name: torch.full((14, 14), float(i)) for i, name in enumerate(FEATURES)}
    d = replace(system.read(scan), contributions=points, evidence=maps, usual_score=-2.0)
    found = find_reasons(d)
    assert found.raised == (Reason("plain_match", 3.0, 0.75), Reason("quiet", 1.0, 0.25))
    assert found.lowered == (Reason("noise_quiet", -1.5, 0.75), Reason("residual_net", -0.5, 0.25))
    assert found.strongest == found.raised[0] and found.usual == -2.0
    assert found.map is maps["plain_match"]


def test_where_nothing_is_raised_there_is_no_reason_and_no_map(
    system: MedFedPure, scan: Tensor
) -> None:
    points = dict.fromkeys(FEATURES, -1.0) | {"quiet": 0.0}
    found = find_reasons(replace(system.read(scan), contributions=points))
    assert found.strongest is None and found.map is None and found.raised == ()
    assert len(found.lowered) == len(FEATURES) - 1


def test_reasons_and_the_usual_score_add_up_to_the_score(system: MedFedPure, scan: Tensor) -> None:
    d = system.read(scan)
    found = find_reasons(d)
    total = found.usual + sum(reason.points for reason in (*found.raised, *found.lowered))
    assert total == pytest.approx(d.scores["fused"], abs=1e-5)
