"""Systems as attackers see them: gradients, ways back, and what decides a reading."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from bench.robustness.attacks import attacks_named, bfloat16_logits
from bench.robustness.systems import PATHS, SUITE_SYSTEMS, build_systems, read_together

EPS = 0.015
CPU = torch.device("cpu")


def test_attackers_see_the_system_at_its_own_depth(four, known):
    target, looks = known["defence"], []

    def depth(x):
        looks.append(len(x))
        return target.depth(x)

    watched, scans = replace(target, depth=depth), four.batches(2, CPU)[0]
    exact = target.logits(scans.x, scans.seeds)
    for fine in (False, True):
        found = bfloat16_logits(watched, scans, fine=fine)(scans.x)
        torch.testing.assert_close(found, exact, atol=1e-4 if fine else 0.1, rtol=0)
    assert looks == [2, 2]


@pytest.mark.parametrize("path", PATHS)
def test_ways_back_differ_and_the_way_forward_does_not(pipeline, four, known, path):
    target = known["plain-purified"]
    x, _, seeds = four.batches(2, CPU)[0]
    grads = {}
    for way in ("exact", path):
        z = x.clone().requires_grad_()
        logits = target.logits(z, seeds, way)
        torch.testing.assert_close(logits, target.logits(x, seeds), atol=1e-4, rtol=0)
        (grads[way],) = torch.autograd.grad(logits[:, 1].sum(), z)
    assert torch.equal(grads["exact"], grads[path]) == (path == "exact")


def test_the_paths_add_up(four, known):
    """The gradients of identity and predicted noise add up to the exact one."""
    target = known["purify-all"]
    x, _, seeds = four.batches(2, CPU)[0]
    grads = {}
    for way in PATHS:
        z = x.clone().requires_grad_()
        # a linear reader: its own gradient is the same wherever it is taken
        pure = replace(target, classify=lambda p: p.flatten(1)).logits(z, seeds, way)
        (grads[way],) = torch.autograd.grad(pure.sum(), z)
    pure = target.front(x, seeds)
    inside = (pure > 0) & (pure < 1)
    assert inside.any()
    total = inside * grads["identity"] + grads["noise"]
    torch.testing.assert_close(grads["exact"], total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SUITE_SYSTEMS)
def test_gradients_reach_the_scan_through_every_target(known, four, name):
    x, _, seeds = four.batches(2, CPU)[0]
    x.requires_grad_()
    known[name].logits(x, seeds)[:, 1].sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    "name", ["defence", "defence-paper-policy", "trained-mixture", "uniform-attention",
             "undefended", "plain-purified"],
)  # fmt: skip
def test_what_is_attacked_is_what_is_read(pipeline, known, four, name):
    x, _, seeds = four.batches(4, CPU)[0]
    reading = read_together(pipeline, [known[name]], x, seeds)[name]
    with torch.no_grad():
        logits = known[name].logits(x, seeds)
    assert torch.allclose(reading.probability, logits.exp()[:, 1], atol=1e-5)


def test_what_else_decides_a_reading_is_in_its_key(pipeline, monkeypatch):
    before = {t.name: t.key for t in build_systems(pipeline)}
    monkeypatch.setattr("bench.robustness.systems.QUALITY", 60)
    monkeypatch.setattr("bench.robustness.systems.DIFFPURE_T", 90)
    other = deepcopy(pipeline)
    other.config = replace(other.config, moe=replace(other.config.moe, sides=(56, 56, 56)))
    changed = {t.name for t in build_systems(other) if t.key != before[t.name]}
    assert changed == set(SUITE_SYSTEMS) - {"undefended", "median", "bits"}


def test_a_purifier_s_settings_are_its_own(pipeline):
    before = {t.name: t.key for t in build_systems(pipeline)}
    other = deepcopy(pipeline)
    other.config = replace(other.config, purifier=replace(other.config.purifier, t_floor=7))
    changed = {t.name for t in build_systems(other) if t.key != before[t.name]}
    assert {"defence", "purify-all"} <= changed and not changed & {"undefended", "trained-mixture"}


def test_unknown_rows_and_targets_are_named(pipeline):
    with pytest.raises(ValueError, match="unknown row 'A12'"):
        attacks_named(["A12"])
    with pytest.raises(ValueError, match="unknown system 'nobody'"):
        build_systems(pipeline, ["nobody"])
    assert tuple(t.name for t in build_systems(pipeline)) == tuple(
        SUITE_SYSTEMS
    )  # what `--help` lists
