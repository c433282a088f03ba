from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from core.pipeline import MedFedPure
from core.scan import read_scan, to_png
from demo.learn import lesson, quiz, views
from demo.learn.lesson import MAX_T, STEPS, Lesson
from demo.learn.quiz import Round, Tally
from demo.learn.text import QUIZ, TEXTS


@pytest.fixture(scope="module")
def seen(system: MedFedPure, scan: Tensor) -> Lesson:
    return lesson.read_clean(system, scan, tumour=True)


@pytest.fixture(scope="module")
def done(system: MedFedPure, seen: Lesson) -> Lesson:
    *_, last = lesson.attack(system, seen, 4)
    return lesson.detect(system, last)


def test_the_scan_is_shown_as_numbers_and_as_the_experts_see_it(seen: Lesson, scan: Tensor) -> None:
    html = views.render_scan(seen, (112, 56, 28))
    numbers = [int(v) for v in re.findall(r'">(\d+)</td>', html)]
    middle = (scan[0, 107:117, 107:117] * 255).round().int().flatten().tolist()
    assert numbers == middle
    assert html.count("<img") == 4 and "28 x 28 pixels" in html
    colours = re.findall(r"background:rgb\((\d+),\d+,\d+\);color:(#\w+)", html)
    for grey, letters in colours:
        assert contrast(int(grey), 255 if letters == "#fff" else 0) >= 4.5


def test_every_grey_value_can_be_read() -> None:
    for grey in range(256):
        letters = 0 if grey >= views.BLACK_TEXT_LEVEL else 255
        assert contrast(grey, letters) >= 4.5


def contrast(a: int, b: int) -> float:
    """Return WCAG's contrast of two greys."""
    low, high = sorted(
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (a / 255, b / 255)
    )
    return (high + 0.05) / (low + 0.05)


def test_the_attack_is_shown_step_by_step(system: MedFedPure, seen: Lesson) -> None:
    going = list(lesson.attack(system, seen, 2))
    assert [len(g.steps) for g in going] == list(range(1, STEPS + 2))
    assert [g.is_attacked for g in going] == [False] * STEPS + [True]
    last = going[-1]
    assert 0 < (last.x_adv - last.scan).abs().max() <= 2 / 255 + 1e-6
    assert torch.equal(read_scan(to_png(last.x_adv)), last.x_adv)
    shown = [views.render_attack_step(last, i) for i in range(STEPS + 1)]
    assert len(set(shown)) == STEPS + 1
    for i, html in enumerate(shown):
        assert f"Step {i} of {STEPS}" in html and f"loss {float(last.steps[i].loss):.2f}" in html
    assert "The attack" in shown[-1] and "The attack succeeded" not in shown[0]


def test_no_levels_are_a_control(system: MedFedPure, seen: Lesson) -> None:
    *_, control = lesson.attack(system, seen, 0)
    assert torch.equal(control.x_adv, seen.scan)
    assert "The attack failed" in views.render_attack_step(control, STEPS)


def test_a_new_attack_forgets_what_came_after_the_old_one(system: MedFedPure, done: Lesson) -> None:
    first = next(lesson.attack(system, done, 1))
    assert first.attacked is None and first.clean_scores is None and len(first.steps) == 1
    assert first.clean is done.clean


def test_a_step_computes_what_it_needs(system: MedFedPure, seen: Lesson) -> None:
    """Step 3 without step 2 runs the attack of step 2."""
    straight = lesson.detect(system, seen)
    assert straight.is_attacked and straight.attacked is not None
    assert torch.equal(straight.attacked.scan, straight.x_adv)
    assert lesson.detect(system, straight) is straight


def test_the_detectors_errors_are_described(done: Lesson) -> None:
    from dataclasses import replace

    assert done.clean is not None and done.attacked is not None
    words = {
        (False, True): "right on both",
        (True, True): "false alarm",
        (False, False): "missed",
        (True, False): "false alarm and the attack was missed",
    }
    for (clean, attacked), said in words.items():
        case = replace(
            done,
            clean=replace(done.clean, flagged=clean),
            attacked=replace(done.attacked, flagged=attacked),
        )
        html = views.render_detection(case)
        assert said in html and ("wrong here" in html) == (said != "right on both")


def test_depth_zero_purifies_nothing_and_more_noise_is_more(
    system: MedFedPure, done: Lesson
) -> None:
    tried = [lesson.purify(system, done, t)[1] for t in (0, 50, MAX_T)]
    assert torch.equal(tried[0].purified, done.x_adv) and torch.equal(tried[0].noised, done.x_adv)
    away = [float((p.noised - done.x_adv).abs().mean()) for p in tried]
    assert away == sorted(away) and away[1] > 0
    own = done.attacked
    assert own is not None
    again = lesson.purify(system, done, min(own.t_star, MAX_T))[1]
    if own.t_star <= MAX_T:  # the same depth and seed: what the system itself did
        torch.testing.assert_close(again.purified, own.purified, atol=1e-4, rtol=0)
    assert "t* = 50" in views.render_purification(done, tried[1])
    with pytest.raises(ValueError, match="depth"):
        lesson.purify(system, done, MAX_T + 1)


def test_the_four_outputs_are_those_of_the_readings(done: Lesson) -> None:
    html = views.render_mixture(done, (112, 56, 28))
    a, b = done.clean, done.attacked
    assert a is not None and b is not None
    expected = [
        a.tumour_probability_undefended, b.tumour_probability_undefended,
        a.tumour_probability, b.tumour_probability,
    ]  # fmt: skip
    widths = re.findall(r'mf-half" aria-hidden="true"><i style="width:([\d.]+)%"></i></span>', html)
    assert [float(w) for w in widths] == pytest.approx([100 * p for p in expected], abs=0.06)


def test_what_is_not_computed_is_not_shown(scan: Tensor) -> None:
    bare = Lesson(scan, True)
    assert views.render_scan(bare, (112,)) == "" == views.render_attack_step(bare, 0)
    assert (
        views.render_detection(bare)
        == ""
        == views.render_mixture(bare, ())
        == views.render_heat_map(bare)
    )


def test_seven_steps_and_a_quiz() -> None:
    assert len(TEXTS) == 7 and all("<h2>" in text for _, text in (*TEXTS, QUIZ))


def test_grad_cam_is_compared_with_the_tumour_map(
    mapping_system: MedFedPure, system: MedFedPure, scan: Tensor
) -> None:
    for own, count in ((system, 2), (mapping_system, 3)):
        compared = lesson.map_heat(own, lesson.read_clean(own, scan, tumour=True))
        html = views.render_heat_map(compared)
        assert html.count("<img") == count
        assert ("The tumour map." in html) == (own is mapping_system)
        assert lesson.map_heat(own, compared) is compared  # nothing is computed twice


@pytest.fixture(scope="module")
def rounds(system: MedFedPure) -> list[Round]:
    return [quiz.draw_round(system, seed) for seed in range(4)]


def test_one_of_a_pair_is_attacked_and_hardly_differs(rounds: list[Round]) -> None:
    for dealt in rounds:
        change = (dealt.pictures[0] - dealt.pictures[1]).abs().max() * 255
        assert 0 < change <= quiz.MAX_LEVELS + 1e-3
    assert {dealt.attacked for dealt in rounds} == {0, 1}  # not always the same side
    assert not torch.equal(rounds[0].pictures[0], rounds[1].pictures[0])


def test_the_same_seed_deals_the_same_round(system: MedFedPure, rounds: list[Round]) -> None:
    again = quiz.draw_round(system, 1)
    assert again.attacked == rounds[1].attacked
    assert torch.equal(again.pictures[0], rounds[1].pictures[0])


def test_the_question_does_not_give_it_away(rounds: list[Round]) -> None:
    html = quiz.render_question(rounds[0])
    words = re.sub(r"data:image/png;base64,[^\"]+", "", html)
    assert "attack" not in words and "suspected" not in words and html.count("<img") == 2


def test_the_answer_says_who_was_right(rounds: list[Round]) -> None:
    dealt = rounds[0]
    right = Tally().add(dealt, dealt.attacked)
    wrong = right.add(dealt, 1 - dealt.attacked)
    assert (right.rounds, right.visitor) == (1, 1) and (wrong.rounds, wrong.visitor) == (2, 1)
    assert wrong.detector == 2 * (dealt.detectors_choice == dealt.attacked)
    html = quiz.render_answer(dealt, 1 - dealt.attacked, wrong)
    assert f"Wrong: {quiz.NAMES[dealt.attacked]} was attacked" in html and "1 of 2" in html
    assert "Right:" in quiz.render_answer(dealt, dealt.attacked, right)
    notes = re.findall(r"<small>(attacked|as drawn);", html)
    assert notes[dealt.attacked] == "attacked" and notes[1 - dealt.attacked] == "as drawn"
    with pytest.raises(ValueError, match="guess"):
        quiz.render_answer(dealt, 2, right)
