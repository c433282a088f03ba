"""The worst case of each scan, who fell to which row, and rows that contradict each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.robustness.attacks import Attacker, attacks_named
from bench.robustness.evaluate import run_suite
from bench.robustness.systems import AttackedDetector
from bench.robustness.worst_case import (
    compare_rows,
    count_broken,
    count_undetected,
    measure_detection,
    select_rows,
    summarize_systems,
)
from bench.summaries import share

EPS = 0.015
CPU = torch.device("cpu")


@pytest.mark.slow
def test_detector_aware_attacks_run_on_scans_broken_with_an_alarm(store, four, known, tiny):
    """A detector that flags everything: no scan is undetected, so A9 runs on all again."""
    flags = AttackedDetector(known["defence"].detector.read, -1e9, 1.0)
    target = replace(known["defence"], detector=flags)
    run_suite(
        store,
        four,
        [target],
        attacks_named(["A0", "A9"]),
        Attacker(EPS, tiny),
        ParallelBatches(CPU, 2),
    )
    rows = store.content["rows"]
    assert "-" not in rows["A9: defence"]["right"]
    assert "1" not in rows["A9: defence"]["unnoticed"]
    found = summarize_systems(rows, four, {"defence": -1e9})["defence"]
    assert [part["unnoticed"] for part in found["unnoticed"].values()] == [0, 0]
    assert found["detection"]["clean"]["flagged"]["k"] == 4


def of(name, right, **more):
    return {f"{name}: it": {"row": name, "system": "it", "right": right, "right_8bit": right,
                            "meaning": "m", **more}}  # fmt: skip


def test_broken_scans_are_counted_once_and_in_the_suite_s_order():
    rows = of("A9", "0-0-", unnoticed="1-1-") | of("clean", "1101", unnoticed="0010")
    rows |= of("A3", "10--", right_8bit="11--", unnoticed="01--")
    rows |= of("A0", "0111", right_8bit="1110", unnoticed="0000")
    own = select_rows(rows, "it")
    assert count_broken(own) == {
        "A0": {"tried": 3, "fell": 2, "unnoticed": 0},  # the fourth in 8 bits alone
        "A3": {"tried": 1, "fell": 1, "unnoticed": 1},  # the first had fallen
        "A9": {"tried": 0, "fell": 0, "unnoticed": 1},  # the third was never right
    }
    assert count_undetected(own) == {
        "as_they_are": {"misread": 1, "unnoticed": 1},
        "attacked": {"misread": 3, "unnoticed": 2},
    }


def test_alarms_are_counted_at_the_threshold_that_was_set_before():
    rows = of("clean", "11", scores=[[0.0, 1.0]]) | of("A0", "11", scores=[[2.0, 3.0], [0.4, 5.0]])
    found = measure_detection(select_rows(rows, "it"), [0, 1], 0.5)
    shares = {name: row["flagged"]["accuracy"] for name, row in found.items()}
    assert shares == {"clean": 0.5, "A0 (1)": 1.0, "A0 (2)": 0.5, "worst": 0.5}
    assert "auroc" not in found["clean"]


EVERY = torch.ones(4, dtype=torch.bool)


def test_rows_that_contradict_each_other_are_warnings():
    one = torch.tensor([True, False, False, False])

    def said(rows, watched=EVERY):
        return compare_rows(rows, "it", EVERY, watched, 0.01)

    masked = of("A2", "0000") | of("A10", "0-00") | of("A3", "1111") | of("clean", "1111")
    warnings = said(masked | of("noise", "1111"))
    assert len(warnings) == 2
    (warning,) = said(of("A10", "1111") | of("noise", "0101"))
    assert "A10 leaves 1.000 of 4 scans right, more than noise (0.500)" in warning
    assert "A3 leaves 1.000 of 4 scans right, more than A2 (0.000)" in warnings[0]
    sound = of("A2", "1011") | of("A10", "11-1") | of("A3", "0010") | of("clean", "1111")
    assert said(sound) == []
    # a row that was not tried on all of the few is compared on the watched alone
    assert said(of("A2", "0000") | of("A3", "111-"), one) == []
    assert len(said(of("A2", "0000") | of("A3", "111-"))) == 1


def test_rows_of_another_budget_have_no_part_in_the_standings(four):
    row = {"row": "clean", "meaning": "", "right": "1101", "right_8bit": "1101"}
    old = {**row, "right": "11011", "right_8bit": "11011", "system": "old"}
    rows = {"clean: it": {**row, "system": "it"}, "clean: old": old}
    assert set(summarize_systems(rows, four)) == {"it"}


def test_standings_of_a_sole_system_have_no_rival(four):
    row = {"row": "clean", "system": "it", "meaning": "m", "right": "1101", "right_8bit": "1100"}
    found = summarize_systems({"clean: it": row}, four)
    assert found["it"]["clean"]["accuracy"] == share(torch.tensor([1, 1, 0, 1]).bool())["accuracy"]
    assert found["it"]["worst"]["k"] == 2  # what is misread in 8 bits is misread in the ball
    assert found["it"]["worst_8bit"]["k"] == 2 and "mcnemar" not in found["it"]
