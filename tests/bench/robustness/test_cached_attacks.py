"""Attacks on a classifier alone are made once for all systems that have it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.robustness.attacks import ATTACKS, Attacker
from bench.robustness.evaluate import CachedAttack, run_suite
from train.data.dataset import Batch

EPS = 0.015
CPU = torch.device("cpu")


@pytest.fixture
def scans(four):
    return four.batches(4, CPU)[0]


def _picked(scans, rows):
    return Batch(scans.x[rows], scans.y[rows], [scans.seeds[i] for i in rows])


def _attack(name):
    return next(r for r in ATTACKS if r.key == name)


def _counting(target):
    """The target, and how many scans its classifier is shown in each call."""
    shown = []

    def classify(x):
        shown.append(len(x))
        return target.classify(x)

    return replace(target, classify=classify), shown


@pytest.mark.parametrize("name", ["A0", "A1", "A2"])
def test_systems_with_one_classifier_are_handed_the_same_scans(name, scans, known, tiny):
    alone, shown = _counting(known["trained-mixture"])
    defence = replace(known["defence"], classify=alone.classify)
    attack = CachedAttack(_attack(name), Attacker(EPS, replace(tiny, starts=2), [alone.classify]))
    some = list(attack(alone, _picked(scans, [2, 0])))
    assert len(shown) and set(shown) == {2}
    shown.clear()
    every = list(attack(defence, scans))
    assert set(shown) == {2}  # those that were not attacked before
    assert len(every) == len(some) == (2 if name == "A1" else 1)
    for whole, part in zip(every, some, strict=True):
        assert torch.equal(whole[[2, 0]], part)
    fresh = attack.attack.generate(attack.attacker, defence, scans)
    for mine, theirs in zip(every, fresh, strict=True):
        assert (mine - scans.x).abs().amax() <= EPS + 1e-6
        same = (mine - theirs).abs() < 1e-5  # the signs of tiny gradients may turn
        assert same.double().mean() > 0.99


def test_a_suite_attacks_no_scan_twice_for_systems_of_one_classifier(store, four, known, tiny):
    """Of the suite's own targets: those with the trained mixture, and one without."""
    real, shown = _attack("A0"), []

    def tries(attacker, target, scans):
        shown.extend((target.classify, seed) for seed in scans.seeds)
        return real.generate(attacker, target, scans)

    chosen = [known[n] for n in ("purify-all", "trained-mixture", "undefended")]
    run_suite(
        store,
        four,
        chosen,
        [replace(real, examples=tries)],
        Attacker(EPS, tiny),
        ParallelBatches(CPU, 2, 2),
    )
    rows = store.content["rows"]
    assert len(shown) == len(set(shown)) > 4
    handed = [rows[f"A0: {t.name}"]["handed"] for t in chosen]
    assert handed[0] == handed[2] == 0 < handed[1] <= rows["A0: trained-mixture"]["tried"]


def test_another_classifier_is_attacked_anew(scans, known, tiny):
    attack = CachedAttack(_attack("A0"), Attacker(EPS, tiny))
    (mixture,), (plain,) = (
        attack(known[name], scans) for name in ("trained-mixture", "undefended")
    )
    assert not torch.equal(mixture, plain)


def test_what_looks_at_the_whole_system_is_made_for_each(scans, known, tiny):
    attack = CachedAttack(_attack("A3"), Attacker(EPS, tiny))
    tries = [next(iter(attack(known[name], scans))) for name in ("trained-mixture", "purify-all")]
    assert not torch.equal(*tries) and not attack.known
