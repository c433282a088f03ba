"""Each self-check of the suite can fail, and what attacks cannot follow is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.parallel import ParallelBatches
from bench.robustness import run as commands
from bench.robustness.checks import FEW_STEPS, check_gradients, check_system
from bench.robustness.filters import bits
from bench.robustness.systems import System

EPS = 0.015
CPU = torch.device("cpu")


def test_a_planted_mask_is_caught(pipeline, test_fold, known, store):
    """Rounding hides the gradient: the share of scans without one, and the rows, give it away."""
    plain = known["undefended"].classify
    masked = System("masked", "", plain, lambda x, _: bits(x, 3))  # claims to have a gradient
    found, warnings = check_gradients(masked, test_fold.thin(4), EPS, CPU)
    assert found["zero_gradients"] == 1.0
    assert any("no gradient at all" in w for w in warnings)
    assert any("0.00 times what its gradient promises" in w for w in warnings)
    honest, warnings = check_gradients(known["undefended"], test_fold.thin(4), EPS, CPU)
    assert honest["zero_gradients"] == 0.0 and honest["slope"] == pytest.approx(1, abs=0.1)
    assert not any("gradient" in w and "eps" not in w for w in warnings)


def test_a_gradient_that_lies_is_caught(four):
    """Forward one function, backward another of opposite sign."""

    def liar(x):
        mean = x.mean((1, 2, 3)) * 50 - 10
        return torch.stack([torch.zeros_like(mean), 2 * mean.detach() - mean], 1)

    found, warnings = check_gradients(System("liar", "", liar), four, EPS, CPU)
    assert found["slope"] == pytest.approx(-1, abs=0.05)
    assert any("-1.00 times what its gradient promises" in w for w in warnings)


def test_attacks_that_reach_nothing_or_never_settle_are_caught(four, monkeypatch):
    """A planted reader for each law that is left."""
    x, y, _ = four.batches(4, CPU)[0]
    truth = torch.stack([0.5 - y.float(), y.float() - 0.5], 1)

    def stubborn(z):  # right whatever is done to it
        return 8 * truth[: len(z)] + 0 * z.mean((1, 2, 3))[:, None]

    _, warnings = check_gradients(System("stubborn", "", stubborn), four, EPS, CPU)
    assert any("eps 0.25 leaves 1.000 right: gradients may be masked" in w for w in warnings)

    calls = []

    def moody(z):  # another answer each time
        calls.append(z)
        sign = 1 if len(calls) % 2 else -1
        return sign * truth[: len(z)] + 0 * z.mean((1, 2, 3))[:, None]

    _, warnings = check_gradients(System("moody", "", moody), four, EPS, CPU)
    assert any("eps 0 leaves" in w for w in warnings)

    def mean(z):
        level = 40 * (z.mean((1, 2, 3)) - x.mean((1, 2, 3))[: len(z)])
        return truth[: len(z)] * (1 - level.abs())[:, None]

    def odd(eps, steps):  # moves far in few steps, and not at all in many
        return lambda logits, z, *_: (z + (0.2 if steps == FEW_STEPS else 0.0)).clamp(0, 1)

    monkeypatch.setattr("bench.robustness.checks.APGD", odd)
    _, warnings = check_gradients(System("level", "", mean), four, EPS, CPU)
    assert any("25 steps leave 1.000 right, 5 steps 0.000" in w for w in warnings)


def test_refusing_is_not_being_right_in_the_self_checks(test_fold, known):
    found, _ = check_gradients(known["detection-only"], test_fold.thin(2), EPS, CPU)
    plain = replace(known["detection-only"], detector=None, refuses=False)
    assert found == check_gradients(plain, test_fold.thin(2), EPS, CPU)[0]


@pytest.mark.parametrize(
    ("classify", "words"),
    [
        (lambda x: torch.full((len(x), 2), 0.5), "returns probabilities"),
        (lambda x: torch.tensor([[0.1, 0.9]]).expand(len(x), 2).bfloat16(), "probabilities"),
        (lambda x: torch.full((len(x), 2), torch.nan), "no number"),
        (lambda x: torch.tensor([[-3.0, 1.0]]).expand(len(x), 2), "the same of every scan"),
        (lambda x: torch.zeros(len(x), 1), "not a logit for each class"),
        (lambda x: torch.zeros(len(x)), "not a logit for each class"),
    ],
)
def test_what_attacks_cannot_follow_is_refused(four, classify, words):
    with pytest.raises(ValueError, match=words):
        check_system(System("odd", "", classify), four, CPU)


def test_one_answer_for_scans_of_both_classes_is_refused(test_fold):
    many = test_fold.pick([i % len(test_fold) for i in range(4 * len(test_fold))])

    def sure(x):  # 'tumour' of every scan, now more and now less
        mean = x.mean((1, 2, 3))
        return torch.stack([-1 - mean, mean], 1)

    with pytest.raises(ValueError, match="says the same of every scan"):
        check_system(System("sure", "", sure), many, CPU)
    check_system(System("sure", "", sure), test_fold.thin(4), CPU)  # of so few it may be chance


def test_a_suite_refuses_before_it_measures(store, pipeline, test_fold, monkeypatch, tiny):
    odd = System("odd", "", lambda x: torch.full((len(x), 2), torch.nan))
    monkeypatch.setattr(commands, "build_systems", lambda *_: [odd])
    with pytest.raises(ValueError, match="odd returns what is no number"):
        commands.measure(
            store,
            pipeline,
            [],
            test_fold,
            ["A0"],
            None,
            tiny,
            eps=EPS,
            lanes=ParallelBatches(CPU, 2),
        )
    assert store.content["rows"] == {}


def test_self_checks_of_older_code_are_a_warning(pipeline, test_fold, store, tiny):
    """Rows of a system that a run does not choose stay, and so does what is not known of them."""

    def run(system):
        lanes = ParallelBatches(CPU, 2)
        commands.measure(
            store, pipeline, [], test_fold, ["A0"], [system], tiny, eps=EPS, lanes=lanes
        )

    run("bits")
    del store.content["rows"]["self-check: bits"]["warnings"]
    run("undefended")
    said = "bits: its self-checks are those of older code"
    assert said in store.content["warnings"]
    del store.content["rows"]["self-check: bits"]["key"]
    run("bits")
    assert said not in store.content["warnings"]
