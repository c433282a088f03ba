from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.pipeline import MedFedPure
from core.scan import read_scan, to_png
from demo.analysis.attack import AIMS, AttackSettings, iterate_attack


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "cw"},
        {"norm": "l1"},
        {"aim": "x"},
        {"truth": "maybe"},
        {"eps": -0.1},
        {"eps": 1.0},
        {"alpha": 0.0},
        {"steps": 0},
        {"steps": 1000},
        {"seed": -1},
        {"eps": float("nan")},
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttackSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("aim", AIMS)
def test_the_result_is_inside_the_ball_and_survives_a_file(
    system: MedFedPure, scan: Tensor, aim: str
) -> None:
    steps = list(iterate_attack(system, scan, AttackSettings(steps=2, aim=aim)))
    x_adv = steps[-1].x_adv[0]
    assert [step.index for step in steps] == [0, 1, 2]
    assert (x_adv - scan).abs().max() <= 0.015 + 1e-6 and not torch.equal(x_adv, scan)
    assert torch.equal(read_scan(to_png(x_adv)), x_adv)


def test_fgsm_takes_one_step_and_eps_zero_none(system: MedFedPure, scan: Tensor) -> None:
    fgsm = AttackSettings(kind="fgsm")
    assert [s.index for s in iterate_attack(system, scan, fgsm)] == [0, 1] and fgsm.num_steps == 1
    control = list(iterate_attack(system, scan, AttackSettings(eps=0.0, steps=2)))
    assert torch.equal(control[-1].x_adv[0], scan)


def test_the_truth_is_what_is_attacked(system: MedFedPure, scan: Tensor) -> None:
    for truth, label in (("no tumour", 0), ("tumour", 1)):
        first = next(iter(iterate_attack(system, scan, AttackSettings(truth=truth))))
        assert torch.allclose(first.loss, -first.probabilities[:, label].log(), atol=1e-5)
