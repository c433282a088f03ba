"""The tables' attacks: inside their budgets in their spaces, and pFedDef's beside its own steps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.federation.methods import TABLE_ATTACKS
from bench.robustness.attacks import A0, CLASSIFIER, Attacker
from bench.robustness.systems import System
from core.attacks.signed_l2 import CIFAR10_STD, SignedL2
from core.seeds import derive_seed
from train.data.dataset import Batch

STD = torch.tensor(CIFAR10_STD).view(1, 3, 1, 1)
SIDE = 32
SEEDS = [3, 4, 5, 6]
ATTACKER = Attacker(0.015)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 15 * 15, 10)
    )


def pictures() -> tuple[Tensor, Tensor]:
    """On the 8-bit grid, black and white among their pixels."""
    x = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return ((x * 1.4 - 0.2).clamp(0, 1) * 255).round() / 255, torch.tensor([0, 3, 9, 3])


def length(delta: Tensor, name: str) -> Tensor:
    """Sizes (B,) of perturbations of [0, 1], in the space and the norm of the attack's budget."""
    if name == "table-1-pfeddef":
        return (delta / STD).flatten(1).norm(dim=1)
    return delta.flatten(1).norm(dim=1) if name == "table-1-l2" else delta.flatten(1).abs().amax(1)


@pytest.mark.parametrize("name", TABLE_ATTACKS)
def test_an_attack_keeps_its_budget_and_uses_it(name: str) -> None:
    model, (x, y) = net(), pictures()
    attack = TABLE_ATTACKS[name].algorithm(ATTACKER)
    x_adv = attack(model, x, y, SEEDS)
    sizes = length(x_adv - x, name)
    assert (sizes <= attack.eps + 1e-5).all() and (sizes > attack.eps / 2).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    with torch.no_grad():
        before, after = (F.cross_entropy(model(z), y, reduction="none") for z in (x, x_adv))
    assert (after > before).all() and not x_adv.requires_grad


@pytest.mark.parametrize("name", TABLE_ATTACKS)
def test_an_attack_leaves_the_model_alone(name: str) -> None:
    model, (x, y) = net().train(), pictures()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = x.clone()
    with torch.no_grad():
        TABLE_ATTACKS[name].algorithm(ATTACKER)(model, x, y, SEEDS)
    assert model.training and torch.equal(x, before)
    assert all((p.grad == 1).all() for p in model.parameters())


@pytest.mark.parametrize("name", TABLE_ATTACKS)
def test_an_attack_follows_from_the_picture_and_its_seed(name: str) -> None:
    model, (x, y) = net(), pictures()
    attack = TABLE_ATTACKS[name].algorithm(ATTACKER)
    together = attack(model, x, y, SEEDS)
    assert torch.equal(together, attack(model, x, y, SEEDS))
    for i, seed in enumerate(SEEDS):
        alone = attack(model, x[i : i + 1], y[i : i + 1], [seed])
        # a sign may turn where a gradient is about zero
        assert ((alone[0] - together[i]).abs() > 1e-4).float().mean() < 0.01
    assert not torch.equal(together, attack(model, x, y, [seed + 9 for seed in SEEDS]))


def test_signed_l2_is_pgd_on_the_normalised_picture() -> None:
    """Written out in normalised pixels, where they are cut off at black and white."""
    model, (x, y) = net(), pictures()
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
    attack = SignedL2(eps=2.0, steps=6)
    z = (x - mean) / STD
    low, high = -mean / STD, (1 - mean) / STD
    generators = [torch.Generator().manual_seed(derive_seed(seed, "attack")) for seed in SEEDS]
    start = torch.stack([torch.rand(x.shape[1:], generator=g) for g in generators])
    z_adv = torch.clamp(z + start * 2.0 / math.sqrt(3 * SIDE**2), low, high)
    for _ in range(6):
        z_adv = z_adv.detach().requires_grad_()
        loss = F.cross_entropy(model(z_adv * STD + mean), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, z_adv)
        delta = z_adv.detach() + 0.01 * grad.sign() - z
        sizes = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        z_adv = torch.clamp(z + delta * (2.0 / sizes).clamp(max=1), low, high)
    expected, found = z_adv * STD + mean, attack(model, x, y, SEEDS)
    assert ((found - expected).abs() > 1e-4).float().mean() < 0.01
    assert (sizes > 2.0).all()  # the ball did bind


def test_the_two_readings_of_table_1_differ_by_far() -> None:
    model, (x, y) = net(), pictures()
    wide, small = (
        (TABLE_ATTACKS[name].algorithm(ATTACKER)(model, x, y, SEEDS) - x).flatten(1).norm(dim=1)
        for name in ("table-1-pfeddef", "table-1-l2")
    )
    assert (wide > 5 * small).all()


def test_every_preset_names_itself_its_space_and_its_table() -> None:
    for name, row in TABLE_ATTACKS.items():
        assert row.key == name and row.knows == CLASSIFIER
        assert "pixels" in row.meaning and ("Table I " in row.meaning) == ("table-1" in name)
        assert vars(row.algorithm(ATTACKER))["steps"] == (10 if "table-1" in name else 7)


def test_table_2_on_br35h_is_the_bench_s_first_row() -> None:
    assert TABLE_ATTACKS["table-2-br35h"].algorithm(ATTACKER) == A0.algorithm(ATTACKER)


def test_a_preset_is_run_as_any_row_is() -> None:
    model, (x, y) = net(), pictures()
    row = TABLE_ATTACKS["table-1-pfeddef"]
    (found,) = row.generate(ATTACKER, System("it", "", model), Batch(x, y, SEEDS))
    assert torch.equal(found, row.algorithm(ATTACKER)(model, x, y, SEEDS))


def test_no_budget_no_change() -> None:
    model, (x, y) = net(), pictures()
    assert torch.equal(SignedL2(eps=0.0)(model, x, y), x)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"eps": -1.0}, "eps must be at least 0 and finite, got -1.0"),
        ({"alpha": 0.0}, "steps, alpha and std must be positive"),
        ({"steps": 0}, "steps, alpha and std must be positive"),
        ({"std": (0.2, 0.0, 0.2)}, "steps, alpha and std must be positive"),
    ],
)
def test_invalid_settings_are_named(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SignedL2(**bad)


def test_a_grey_picture_needs_a_spread_of_its_own() -> None:
    x = torch.rand(2, 1, SIDE, SIDE)
    with pytest.raises(ValueError, match=r"one number per channel, got \(0.2023.* for 1"):
        SignedL2()(net(), x, torch.tensor([0, 1]))
