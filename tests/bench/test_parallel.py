"""Batches side by side, and the time that is left."""

from __future__ import annotations

import time

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.result_file import ResultFile
from bench.robustness.attacks import Attacker, attacks_named
from bench.robustness.evaluate import run_suite

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
