"""Batches side by side, and the time that is left."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.result_file import ResultFile
from bench.robustness.attacks import ATTACKS, Attacker, attacks_named
from bench.robustness.evaluate import Work, estimate_remaining, run_suite

EPS = 0.015
CPU = torch.device("cpu")


def test_lanes_keep_the_order_and_stop_where_one_fails(four):
    def slowest_first(scans):
        time.sleep(0.05 * (4 - scans.seeds[0] % 5))
        return scans.seeds

    alone = list(ParallelBatches(CPU, 1).map(slowest_first, four, ""))
    assert list(ParallelBatches(CPU, 1, 3).map(slowest_first, four, "")) == alone

    def fails(scans):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(ParallelBatches(CPU, 1, 2).map(fails, four, ""))
    with pytest.raises(ValueError, match="1 or more"):
        ParallelBatches(CPU, 1, 0)


def test_threads_side_by_side_find_what_one_finds(store, four, known, tmp_path, tiny):
    """A7 listens to a network that both threads use."""
    target, rows = known["diffpure"], []
    for workers in (1, 2):
        own = ResultFile(tmp_path / f"{workers}.json", "robustness", {}, {"machine": {}})
        run_suite(
            own,
            four,
            [target],
            attacks_named(["A7"]),
            Attacker(EPS, tiny),
            ParallelBatches(CPU, 2, workers),
        )
        rows.append({n: (r["right"], r["right_8bit"]) for n, r in own.content["rows"].items()})
    assert rows[0] == rows[1]


def test_the_estimate_remaining_is_judged_by_rows_of_the_same_kind_and_system(tiny):
    def row(name, system, seconds, right):
        return {"row": name, "system": system, "wall_s": seconds, "n": 4, "right": right}

    by_name = {r.key: r for r in ATTACKS}
    budget = replace(tiny, steps=50)
    rows = {
        "A0": row("A0", "it", 28.0, "1111"),  # a second a look, at the classifier alone
        "A3": row("A3", "it", 300.0, "11--"),  # three, at the whole of it
        "A3 of another": row("A3", "other", 2000.0, "1111"),
        "clean": {"row": "clean", "system": "it", "wall_s": 9.0, "n": 4, "right": "1111"},
    }

    def left(name, system, scans):
        return estimate_remaining(rows, [Work(by_name[name], system, scans)], budget)

    assert left("A4", "it", 4) == "about 10 min"  # 50 looks, 4 scans, 3 s
    assert left("A1", "it", 6) == "about 5 min"
    assert left("A4", "other", 4) == "about 33 min"
    assert left("A4", "third", 3) == "about 19 min"  # (300 + 2000) s for 300 looks
    assert left("A4", "it", 400) == "about 16.7 h"
    assert left("A1", "other", 6) == "about 5 min"
    assert estimate_remaining({}, [Work(by_name["A4"], "it", 4)], budget) == ""
    assert left("A4", "it", 0) == ""
    rows["A0 handed"] = row("A0", "handed", 4.0, "1111") | {"handed": 4}
    # nothing was attacked: the pace of all, 32 s for 28 looks
    assert left("A1", "handed", 6) == "about 6 min"
