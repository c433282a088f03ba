"""Noise that is drawn anew: what is counted, and an attack on it that is too weak."""

from __future__ import annotations

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.robustness.attacks import Attacker
from bench.robustness.randomness import (
    check_noise,
    derive_draw_seeds,
    measure_randomness,
    summarize_draws,
)

EPS = 0.015
CPU = torch.device("cpu")


def test_noise_drawn_anew_is_read_more_than_once(store, four, known, tiny):
    lanes = ParallelBatches(CPU, 1)
    found = measure_randomness(store, known["purify-all"], four.thin(2), Attacker(EPS, tiny), lanes)
    kept = store.content["unfinished"]["randomness: purify-all"]
    assert kept["done"] == 2  # a killed run goes on
    again = measure_randomness(store, known["purify-all"], four.thin(2), Attacker(EPS, tiny), lanes)
    assert again == found
    draws = [known["purify-all"].logits(*_of(four, draw)) for draw in (0, 1, 7)]
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    for name in ("clean", "A3 with EOT", "A8"):
        block = found[name]
        assert block["right_in_all"][20] <= block["right_in_all"][5] <= block["right_in_all"][1]
        assert 0 <= block["one_shot"]["mean"] <= 1
    assert found["n"] == 2 and found["draws"] == 20


def _of(fold, draw):
    x, _, seeds = fold.thin(2).batches(2, CPU)[0]
    return x, derive_draw_seeds(seeds, draw)


def test_an_attack_in_expectation_that_is_weaker_than_one_on_a_single_draw_is_named():
    def row(many, single, known):
        """Shares right on draws that neither knows; `known`: of the one draw that A8 knows."""
        mean = (19 * single + known) / 20
        said = {"A3 with EOT": {"one_shot": {"mean": many}, "first": many},
                "A8": {"one_shot": {"mean": mean}, "first": known}}  # fmt: skip
        return {"n": 50, "eot": 4, "draws": 20, **said}

    assert not check_noise(row(0.80, 0.84, 0.4), 0.01)
    assert not check_noise(row(0.86, 0.84, 0.4), 0.01)
    assert "too weak" in check_noise(row(0.90, 0.84, 0.84), 0.01)[0]


def test_one_shot_resubmission_and_vote_are_counted():
    right = torch.zeros(20, 2, dtype=torch.bool)
    right[:, 0] = True
    right[::2, 1] = True  # right in the first, the third, ...: 3 of 5, 10 of 20
    found = summarize_draws(right, [0, 1])
    assert found["one_shot"]["mean"] == pytest.approx(0.75)
    assert found["one_shot"]["interval_by_group"] == pytest.approx((0.5, 1.0))
    assert found["right_in_all"] == {1: 1.0, 5: 0.5, 20: 0.5}
    assert found["vote"] == {1: 1.0, 5: 1.0, 20: 0.5}
