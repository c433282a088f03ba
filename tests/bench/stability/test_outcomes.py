"""Outcomes: silent, refused and right exclude each other, and refusing more silences no less."""

from __future__ import annotations

import math

import pytest
import torch

from bench.stability.outcomes import (
    Reads,
    draw_curve,
    find_robust,
    find_worst,
    list_worst,
    pack,
    summarize_outcomes,
    unpack,
)
from bench.stability.tables import TABLES
from core.stability import RADII


def reads(*pairs: tuple[bool, float]) -> Reads:
    return Reads(torch.tensor([right for right, _ in pairs]), torch.tensor([d for _, d in pairs]))


def test_readings_survive_the_file() -> None:
    some = reads((True, math.inf), (False, 0.004), (True, 0.0151))
    again = unpack(pack(some))
    assert torch.equal(again.right, some.right)
    torch.testing.assert_close(again.distance, some.distance)


def test_a_flip_at_the_radius_refuses() -> None:
    some = reads((True, 0.0075), (True, 0.00751), (False, 0.0075), (False, math.inf))
    assert some.is_refused(0.0075).tolist() == [True, False, True, False]
    assert some.is_silent(0.0075).tolist() == [False, False, False, True]
    assert some.is_silent(0.0).tolist() == [False, False, True, True]


def test_the_worst_case_counts_each_scan_once() -> None:
    clean = reads((True, 0.02), (True, 0.005), (True, 0.02), (False, 0.02))
    attacked = reads((True, 0.02), (True, 0.02), (False, 0.009), (True, 0.02))
    worst = find_worst([clean, attacked], 0.0075)
    assert worst.right.tolist() == [True, False, False, False]
    assert worst.refused.tolist() == [False, True, False, False]
    assert worst.silent.tolist() == [False, False, True, True]
    assert (sum(part.int() for part in worst) == 1).all()
    silent = [int(find_worst([clean, attacked], d).silent.sum()) for d in (0.0, *RADII, 0.1)]
    assert silent == sorted(silent, reverse=True) and silent[-1] == 0


@pytest.fixture
def result() -> dict[str, object]:
    clean = pack(reads((True, 0.02), (True, 0.005), (False, 0.02), (True, 0.003)))
    wrong = pack(reads((False, 0.02), (True, 0.005), (False, 0.02), (True, 0.003)))
    wrong["attacked"] = 3
    names = ("grain", "sign noise", "PGD-7", "APGD-CE", "HCMOA")
    rows = {
        "scans": {"labels": "1010", "units": [1, 2, 3, 4], "sources": ["a", "a", "b", "b"]},
        "clean": clean, **dict.fromkeys(names, clean), "CHCMOA 0.0075": wrong,
        "CHCMOA 0.015": clean,
        "missed": {"n": 2, "by_radius": {"0.0075": {"flipped": 1, "missed": 0}}},
    }  # fmt: skip
    near = pack(reads((True, 0.003), (True, 0.005), (False, 0.02), (True, 0.003)))
    rows |= {"HCMOA 0.25": clean, "HCMOA 0.5": near}
    rows["outcomes"] = summarize_outcomes(rows)
    machine = {"device_name": "a machine", "threads": 1}
    facts = {"date": "2026-01-01", "commit": "abc", "machine": machine}
    return {"rows": rows, "provenance": facts, "warnings": []}


def test_a_consistent_attack_counts_at_every_radius(result: dict[str, object]) -> None:
    rows = result["rows"]
    assert isinstance(rows, dict) and len(list_worst(rows)) == 8
    silent = [int(find_worst(list_worst(rows), d).silent.sum()) for d in (0.0, 0.0075, 0.011)]
    assert silent == [2, 2, 2]


def test_the_table_says_what_is_refused_and_what_is_silent(result: dict[str, object]) -> None:
    text = TABLES["stability"]({"stability-patients": result})
    lines = text.splitlines()
    assert lines[2].startswith("| nothing refused | 0.0 ")
    (line,) = (one for one in lines if one.startswith("| 0.0075"))
    cells = [cell.strip().split(" ")[0] for cell in line.strip("|").split("|")]
    assert cells[1:7] == ["50.0", "25.0", "50.0", "50.0", "0.0", "0.0"]
    assert "of 2 clean scans other attacks flip 1 within 0.0075, 0 of which" in text.lower()
    by_source = TABLES["stability-sources"]({"stability-patients": result})
    assert "| 0.0075 | clean: refused | 50.0 of 2 | 50.0 of 2 |" in by_source
    assert "| 0.0075 | attacked: silently wrong | 50.0 of 2 | 50.0 of 2 |" in by_source


def test_robustness_with_rejection_wants_answers_near_the_scan(result: dict[str, object]) -> None:
    """Scan 1 is right when clean and silently wrong under CHCMOA; 2 and 4 lie near the border."""
    rows = result["rows"]
    assert isinstance(rows, dict)
    assert find_robust(rows, 0.0, 0.25).tolist() == [False, True, False, True]
    assert find_robust(rows, 0.004, 0.25).tolist() == [False, True, False, False]
    assert find_robust(rows, 0.0075, 0.0).tolist() == [False] * 4
    rows["CHCMOA 0.0075"] = rows["clean"]
    assert find_robust(rows, 0.0075, 0.25).tolist() == [True, False, False, False]
    assert find_robust(rows, 0.0075, 0.5).tolist() == [False] * 4
    text = TABLES["stability-rejection"]({"stability-patients": result})
    assert "| refused within | eps0 0 eps, % | eps0 0.25 eps, % | eps0 0.5 eps, % |" in text


def test_risk_falls_to_nothing_where_nothing_is_answered() -> None:
    curve = draw_curve([reads((True, 0.02), (False, 0.01), (True, 0.004), (False, 0.0))])
    assert curve.radii == [0.0, *RADII]
    assert curve.coverage == [0.75, 0.5, 0.25] and curve.risk == [1 / 3, 0.5, 0.0]
    assert draw_curve([reads((False, 0.0))]).risk == [0.0, 0.0, 0.0]
