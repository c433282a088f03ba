"""Risk against coverage: who is refused, and what the rest gains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.result_file import ResultFile
from bench.unseen import coverage
from bench.unseen.coverage import balance, keep, measure_coverage
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset
from train.data.split import Manifest


def test_those_with_the_most_doubt_are_refused() -> None:
    doubt = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2])
    assert keep(doubt, 0.4).tolist() == [0, 2, 4]
    assert keep(doubt, 0.2).tolist() == [0, 2, 3, 4]
    assert keep(doubt, 0).tolist() == [0, 1, 2, 3, 4]


def test_balance_needs_both_classes() -> None:
    right = torch.tensor([True, False, True, True])
    assert balance(right, torch.tensor([1, 1, 0, 0])) == 0.75
    assert balance(right, torch.ones(4)) is None


def test_each_score_refuses_its_own_and_the_gain_is_that_of_the_rest() -> None:
    """Of ten scans two are wrong: the least confident ones, which are the most familiar."""
    y = torch.tensor([0, 1] * 5)
    log_odds = (2.0 * y - 1) * torch.arange(1, 11)
    log_odds[:2] *= -0.1
    novelty = torch.arange(10.0)
    found = measure_coverage(log_odds, novelty, y, range(10))
    assert found["confidence"]["curve"] == pytest.approx(
        [0.8, 8 / 9 + 1 / 90, *[1.0] * 4], abs=0.02
    )
    assert found["confidence"]["gain"] == pytest.approx(0.2)
    low, high = found["confidence"]["interval"]
    assert low >= 0 and low < 0.2 < high
    assert found["novelty"]["curve"][0] == 0.8
    assert found["novelty"]["gain"] == pytest.approx(0.75 - 0.8)
    assert found["novelty"]["curve"][-1] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert list(found) == ["novelty", "confidence", "both"]
    alone = measure_coverage(log_odds, None, y, range(10))
    assert alone == {"confidence": found["confidence"]}


def test_the_command_measures_unused_units_of_sources_with_both_classes(
    pipeline: MedFedPure,
    test_fold: ScanDataset,
    store: ResultFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coverage, "SITE_SCANS", 2)
    lone = test_fold.entries[0]
    trained = Manifest("without-br35h", (replace(lone, fold="train"),))
    coverage.measure(store, pipeline, test_fold, trained, batch_size=8)
    (row,) = store.content["rows"].values()
    left = sum(group != lone.group for group in test_fold.groups)
    assert row["site_scans"] == 2 and row["n"] == left - 2 < len(test_fold) - 2
    assert list(row["before"]) == list(row["after"]) == ["novelty", "confidence", "both"]
    starts = [found["curve"][0] for found in row["after"].values()]
    assert starts == [starts[0]] * 3
    text = coverage.table({"coverage-paper": store.content})
    assert "| br35h, " in text and "50 % refused" in text and "gain at 20 %" in text
