"""The attack on the map: the answer stays, the ball is kept, and the map moves."""

from __future__ import annotations

import pytest
import torch

from bench.explanations.map_attack import MapAttack, look_at_map
from core.classifier import Calibrated
from core.moe import MixtureOfExperts, MoEConfig

CONFIG = MoEConfig(
    img_size=64, sides=(32, 16), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4, map_width=4
)


@pytest.fixture(scope="module")
def classifier() -> Calibrated:
    torch.manual_seed(3)
    return Calibrated(MixtureOfExperts(CONFIG)).eval().requires_grad_(False)


def test_the_objective_rises_as_far_as_the_answer_allows() -> None:
    x = torch.full((2, 1, 1, 1), 0.5)
    ends = torch.tensor([0.505, 0.9])  # of what keeps the answer; .515 is the ball's

    def look(z):
        value = z.flatten()
        return value, 100 * (ends - value)

    found = MapAttack(steps=50)(look, x, [0, 1]).flatten()
    assert 0.502 < found[0] < 0.505
    assert found[1] == pytest.approx(0.515)


def test_energy_leaves_the_mask_and_the_answer_stays(classifier: Calibrated) -> None:
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[:3, 16:40, 16:40] = True  # the last is healthy
    look, attack = look_at_map(classifier, x, masks), MapAttack(0.06, 8)
    x_adv = attack(look, x, [5, 6, 7, 8])
    assert (x_adv - x).abs().max() <= 0.06 + 1e-6 and 0 <= x_adv.min() <= x_adv.max() <= 1
    assert torch.equal(classifier(x_adv).argmax(1), classifier(x).argmax(1))
    before, after = look(x)[0], look(x_adv)[0]
    assert (after > before).all()
    alone = attack(look_at_map(classifier, x[1:2], masks[1:2]), x[1:2], [6])
    assert torch.allclose(alone, x_adv[1:2], atol=1e-4)


def test_the_objective_is_energy_outside_against_inside(classifier: Calibrated) -> None:
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 16:40, 16:40] = True
    output = classifier.model.outputs(x)
    cells = sum(
        output.attention[:, k, None, None] * m.probability for k, m in enumerate(output.maps)
    )
    inside = cells[0, 4:10, 4:10].sum()
    expected = [(cells[0].sum() - inside).log() - inside.log(), cells[1].sum().log()]
    objective, odds = look_at_map(classifier, x, masks)(x)
    assert objective.tolist() == pytest.approx([float(e) for e in expected], abs=1e-4)
    assert (odds > 0).all()  # of the answer that is given, whichever it is


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"first": 0.0}, {"slack": -1.0}, {"eps": -1.0}])
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"must be at least 0|out of range"):
        MapAttack(**wrong)
