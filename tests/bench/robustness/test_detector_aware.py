"""Attacks on the detector reach their goals, and a score that hides its gradient is caught."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from bench.robustness import run as commands
from bench.robustness.attacks import ATTACKS, Attacker, Budget, random_corner
from bench.robustness.checks import (
    check_attacks,
    check_detector,
    check_gradients,
    gradient_cosines,
)
from bench.robustness.systems import AttackedDetector, DetectorReading, System, build_systems
from bench.robustness.worst_case import PAIRS, compare_rows
from core.attacks import DetectorAwarePGD
from core.attacks.base import margin, to_eight_bit
from train.data.dataset import Batch

EPS = 0.015
CPU = torch.device("cpu")
BUDGET = Budget(
    scans=4, steps=20, restarts=1, starts=1, eot=1, queries=2, few_scans=4, curve_scans=1, others=0,
    checked=4,
)  # fmt: skip
TAU = 0.2


def classify(z):
    """Right of class 0 until the upper half is brighter by .005."""
    lead = 100 * (z[:, :, : z.shape[2] // 2].mean((1, 2, 3)) - 0.505)
    return torch.stack([torch.zeros_like(lead), lead], 1)


def score_of(z):
    """Rises with both halves: who brightens the upper one must darken the lower one."""
    above, below = (100 * (half.mean((1, 2, 3)) - 0.5) for half in z.chunk(2, dim=2))
    return above / 2 + below


def read(z, _):
    below = 100 * (z[:, :, z.shape[2] // 2 :].mean((1, 2, 3)) - 0.5)
    return DetectorReading(classify(z), score_of(z), torch.stack([below, below], 1))


def gate(score=score_of):
    return AttackedDetector(lambda z, seeds: read(z, seeds)._replace(score=score(z)), TAU, 1.0)


TOY = System("toy", "", classify, detector=gate())


@pytest.fixture
def scans():
    return Batch(torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.long), [0, 1, 2, 3])


def found(name, scans, target=TOY):
    (attack,) = [r for r in ATTACKS if r.key == name]
    return list(attack.generate(Attacker(EPS, BUDGET), target, scans))


def misread(z):
    return bool((margin(classify(z), torch.zeros(len(z), dtype=torch.long)) > 0).all())


def test_an_attack_on_the_classifier_alone_is_flagged(scans):
    (z,) = found("A4", scans)
    assert misread(z) and bool((score_of(z) > TAU).all())


def test_a9_is_misread_and_not_flagged(scans):
    for z in found("A9", scans):
        assert misread(z) and bool((score_of(z) < TAU).all())


def looked(z):
    return margin(classify(z), torch.zeros(len(z), dtype=torch.long)), score_of(z) - TAU


def test_detector_aware_pgd_stays_in_the_ball_and_keeps_the_best_point(scans):
    x = scans.x
    z = DetectorAwarePGD(EPS, 20)(looked, x, x)
    assert float((z - x).abs().max()) <= EPS + 1e-6 and misread(to_eight_bit(x, z))
    assert bool((score_of(to_eight_bit(x, z)) < TAU).all())  # as a file holds it
    held = DetectorAwarePGD(EPS, 20, eight_bit=True)(looked, x, x)
    assert torch.equal(held, to_eight_bit(x, z)) and not torch.equal(held, z)
    alone = DetectorAwarePGD(EPS, 20, share=0)(looked, x, x)
    assert misread(alone) and float(score_of(alone).min()) > float(score_of(z).max())
    edge = torch.zeros_like(x)
    assert float(DetectorAwarePGD(EPS, 5)(looked, edge, edge).min()) >= 0


def test_detector_aware_pgd_reads_8_bit_scans_and_returns_the_best_point():
    """Of four scans each one's goal is highest elsewhere on its way; the last has none."""
    x = torch.full((4, 1, 8, 8), 128 / 255)
    looks = []

    def look(z):
        looks.append(z.detach())
        best = torch.tensor([0, 3, 7, -1])
        lead = 1 - (len(looks) - 1 - best).abs().float() - 9 * (best < 0)
        return lead + 0 * z.sum((1, 2, 3)), -2 + z.mean((1, 2, 3))

    found = DetectorAwarePGD(EPS, 8)(look, x, x)
    for z in looks:
        levels = (z - x) * 255
        assert torch.allclose(levels, levels.round(), atol=1e-3) and float(levels.abs().max()) < 3.5
    for scan, point in enumerate((0, 3, 7, 8)):
        assert torch.equal(to_eight_bit(x, found)[scan], looks[point][scan])
    sizes = [float((b - a).abs().max()) for a, b in itertools.pairwise(looks)]
    assert sizes[0] > sizes[-1]  # the steps shrink


def test_detector_aware_pgd_lowers_the_score_where_it_cannot_mislead(scans):
    def hopeless(z):
        return looked(z)[0] - 100, looked(z)[1]

    z = DetectorAwarePGD(EPS, 20)(hopeless, scans.x, scans.x)
    assert bool((score_of(z) < score_of(scans.x)).all())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"share": -1}, {"first": 0}, {"momentum": 1}])
def test_settings_of_detector_aware_pgd_are_checked(wrong):
    with pytest.raises(ValueError, match="out of range"):
        DetectorAwarePGD(**wrong)


def test_a9b_is_misread_although_flaggedgradient_cosines_and_in_turn(scans):
    deep, alike, in_turn = found("A9b", scans)
    assert misread(deep) and bool((score_of(deep) > TAU + 0.4).all())

    def distance(z):
        return (read(z, None).features - read(scans.x, None).features).square().mean()

    (free,) = found("A4", scans)
    assert misread(alike) and float(distance(alike)) < float(distance(free)) / 4
    assert bool((score_of(in_turn) < -0.5).all())  # far below the clean scans', which is 0
    assert float(in_turn[:, :, :4].mean()) > 0.5 - EPS / 5  # though not at the system's cost


def test_a7_raises_the_mean_margin_of_all_steps(scans):
    """The second step's estimate answers the other way round, and three times as much."""
    steps = replace(TOY, estimates=lambda z, _: [z, 0.5 - 3 * (z - 0.5)])
    (z,) = found("A7", scans, steps)
    moved = (z - scans.x)[:, :, :4]
    assert torch.allclose(moved, torch.full_like(moved, -EPS), atol=1e-6)


def wide(target, fold, **kinds):
    """Warnings of `check_detector` for a toy system on scans of full size."""
    return check_detector(replace(target, **kinds), fold.thin(4), EPS, CPU)


def test_a_score_that_shows_its_gradient_passes(test_fold):
    figures, warnings = wide(TOY, test_fold)
    assert warnings == []
    assert figures["slope"] == pytest.approx(1, abs=0.1) and figures["zero_gradients"] == 0
    assert figures["with_gradient"] < figures["without"] < figures["moved"] + 1
    assert check_detector(replace(TOY, detector=None), test_fold.thin(4), EPS, CPU) == ({}, [])


def test_a_score_without_a_gradient_is_caught(test_fold):
    def hidden(z):
        return score_of(z).detach() + 0 * z.sum((1, 2, 3))

    figures, warnings = wide(TOY, test_fold, detector=gate(hidden))
    assert figures["zero_gradients"] == 1.0
    assert any("for 100% of the scans the detector's score has no gradient" in w for w in warnings)
    assert any("rises 0.00 times what its gradient promises" in w for w in warnings)


def test_a_score_whose_gradient_leads_up_is_caught(test_fold):
    def liar(z):
        return 2 * score_of(z).detach() - score_of(z)

    figures, warnings = wide(TOY, test_fold, detector=gate(liar))
    assert figures["slope"] == pytest.approx(-1, abs=0.1)
    assert any("times what its gradient promises" in w for w in warnings)
    assert any("it may be masked" in w for w in warnings)


def test_gradients_are_compared_however_small():
    first = torch.tensor([[[[3e-30, 4e-30]]], [[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    second = torch.tensor([[[[30.0, 40.0]]], [[[0.0, 1e-25]]], [[[1.0, 0.0]]]])
    assert gradient_cosines(first, second).tolist() == pytest.approx([1, 0, 0])


def test_attacks_that_see_another_gradient_are_caught(test_fold, monkeypatch):
    monkeypatch.setattr(
        "bench.robustness.checks.bfloat16_logits",
        lambda t, s: lambda z: t.classify(z.flip(2).cos() + z.flip(2)),
    )
    _, warnings = check_gradients(TOY, test_fold.thin(4), EPS, CPU)
    assert any("has a cosine of" in w for w in warnings)


def test_warnings_of_the_checks_and_of_rows_stand_in_the_result(
    pipeline, test_fold, tmp_path, monkeypatch
):
    def masked(z):
        return score_of(z).detach() + 0 * z.sum((1, 2, 3))

    monkeypatch.setattr(
        commands, "build_systems", lambda *_: [System("toy", "", classify, detector=gate(masked))]
    )
    monkeypatch.setattr(commands, "compare_rows", lambda *_: ["rows that contradict each other"])
    facts = {"machine": machine_facts(CPU)}
    store = ResultFile(tmp_path / "suite.json", "robustness", {"of": "this"}, facts)
    small = replace(BUDGET, steps=1)

    def measure():
        lanes = ParallelBatches(CPU, 4)
        commands.measure(
            store, pipeline, [], test_fold, ["clean"], None, small, eps=EPS, lanes=lanes
        )

    measure()
    said = store.content["warnings"]
    assert any("the detector's score has no gradient" in w for w in said)
    assert "rows that contradict each other" in said
    assert json.loads((tmp_path / "suite.json").read_text())["warnings"] == said
    assert store.content["rows"]["self-check: toy"]["detector"]["zero_gradients"] == 1.0

    del store.content["rows"]["self-check: toy"]
    monkeypatch.setattr(commands, "build_systems", lambda *_: [TOY])
    monkeypatch.setattr(commands, "compare_rows", lambda *_: [])
    measure()
    left = store.content["warnings"]  # what has been mended is no longer said
    assert not any("has no gradient" in w or "contradict" in w for w in left)


@pytest.mark.parametrize(("weak", "strong"), PAIRS)
def test_every_law_between_two_rows_can_be_broken(weak, strong):
    def rows(left, right):
        both = ((weak, left), (strong, right))
        return {n: {"row": n, "system": "it", "right": bits} for n, bits in both}

    every = (torch.ones(4, dtype=torch.bool),) * 2
    (warning,) = compare_rows(rows("0001", "0111"), "it", *every, 0.01)
    assert f"{strong} leaves 0.750 of 4 scans right, more than {weak} (0.250)" in warning
    assert compare_rows(rows("0111", "0001"), "it", *every, 0.01) == []
    assert compare_rows(rows("0001", "0011"), "it", *every, 0.01) == []  # one may fall to luck


def test_the_suite_compares_noise_with_the_strongest():
    assert ("noise", "A3") in PAIRS and ("A5", "A3") in PAIRS
    assert {n for pair in PAIRS for n in pair} <= {"clean", *(r.key for r in ATTACKS)}


def test_attacks_that_do_not_work_are_warnings(pipeline, test_fold):
    """The classifiers' own checks, each with a reader that breaks the law."""
    (system,) = build_systems(pipeline, ["undefended"])
    fold = test_fold.thin(4)
    x, y, _ = fold.batches(4, CPU)[0]
    truth = torch.stack([0.5 - y.float(), y.float() - 0.5], 1)

    def said(reader):
        planted = replace(system, classify=lambda z: reader(z).log_softmax(1))
        return check_attacks(pipeline, fold, [planted], EPS)[1]

    def stubborn(z):
        return 8 * truth + 0 * z.mean((1, 2, 3))[:, None]

    assert any("eps .25 leaves 1.000: gradients may be masked" in w for w in said(stubborn))
    calls = []

    def moody(z):
        calls.append(z)
        return (1 if len(calls) == 1 else -1) * truth + 0 * z.mean((1, 2, 3))[:, None]

    assert any("eps 0 gives" in w for w in said(moody))

    def rough(z):
        return (z[..., 1:] - z[..., :-1]).abs().mean((1, 2, 3))

    seeds = fold.batches(4, CPU)[0].seeds
    grain = 0.9 * (rough(random_corner(x, EPS, seeds)) - rough(x))

    def grainy(z):  # the coarsest noise misleads it; its gradient leads nowhere
        sign = torch.where(rough(z) - rough(x) > grain, -1.0, 1.0)
        return truth * sign[:, None] + 0 * z.mean((1, 2, 3))[:, None]

    assert any("is weaker than noise (0.000)" in w for w in said(grainy))
