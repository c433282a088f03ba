"""FGSM, PGD, EOT: inside their ball, the loss does not fall, exact where a closed form exists."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attacks import FGSM, PGD, eot
from core.attacks.base import noise_in_ball, to_eight_bit
from core.scan import read_scan, to_png

EPS = {"linf": 0.03, "l2": 0.4}
ALPHA = {"linf": 0.01, "l2": 0.1}
SIDE = 8
Attack = FGSM | PGD


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.Tanh(), nn.Linear(32, 3))


def scans(count: int = 5) -> Tensor:
    """Draw scans on the 8-bit grid that contain black and white."""
    x = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return ((x * 1.4 - 0.2).clamp(0, 1) * 255).round() / 255


def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1])


def loss(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


def sizes(delta: Tensor, norm: str) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def attacks(norm: str, **more: bool) -> list[Attack]:
    return [
        FGSM(eps=EPS[norm], norm=norm, **more),
        PGD(eps=EPS[norm], alpha=ALPHA[norm], norm=norm, **more),
        PGD(eps=EPS[norm], alpha=ALPHA[norm], norm=norm, random_start=False, **more),
    ]


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_stay_in_their_ball_and_raise_the_loss(norm: str, eight_bit: bool) -> None:
    model, x, y = net(), scans(), labels()
    for attack in attacks(norm, eight_bit=eight_bit):
        for step in attack.trajectory(model, x, y):
            assert (sizes(step.x_adv - x, norm) <= EPS[norm] + 1e-6).all()
            assert step.x_adv.min() >= 0 and step.x_adv.max() <= 1
        x_adv = attack(model, x, y)
        assert (sizes(x_adv - x, norm) > EPS[norm] / 3).all()  # it uses its budget
        assert (loss(model, x_adv, y) > loss(model, x, y)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_do_more(norm: str) -> None:
    model, x, y = net(), scans(), labels()
    one = FGSM(eps=EPS[norm], norm=norm)(model, x, y)
    many = PGD(eps=EPS[norm], alpha=ALPHA[norm], steps=20, norm=norm)(model, x, y)
    assert loss(model, many, y).mean() >= loss(model, one, y).mean() - 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_models_fgsm_is_the_closed_form(norm: str) -> None:
    """Log-odds w . x: label 1 is attacked along -w, label 0 along w, whatever the loss's slope."""
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    direction = (w.sign() if norm == "linf" else w / w.norm()).view(1, 1, SIDE, SIDE)

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x.flatten(1) @ w], dim=1)

    x, y = scans(2), torch.tensor([0, 1])
    expected = (x + EPS[norm] * direction * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(
        FGSM(eps=EPS[norm], norm=norm)(model, x, y), expected, atol=1e-6, rtol=0
    )
    # with steps enough, PGD ends in the same corner (in L2 the cube's walls bend its way)
    if norm == "linf":
        x_adv = PGD(eps=EPS[norm], alpha=ALPHA[norm])(model, x, y)
        torch.testing.assert_close(x_adv, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_model_is_left_as_it_was(norm: str) -> None:
    model, x, y = net().train(), scans(), labels()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    weights = [p.detach().clone() for p in model.parameters()]
    before = x.clone()
    for attack in attacks(norm):
        with torch.no_grad():  # a caller's setting, which the attack neither needs nor changes
            x_adv = attack(model, x, y)
            assert not torch.is_grad_enabled()
        assert not x_adv.requires_grad
    assert model.training and torch.equal(x, before) and x.grad is None
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_trajectory_ends_in_the_result(norm: str, eight_bit: bool) -> None:
    model, x, y = net(), scans(), labels()
    for attack in attacks(norm, eight_bit=eight_bit):
        steps = list(attack.trajectory(model, x, y, seeds=range(5)))
        assert [s.index for s in steps] == list(range(getattr(attack, "steps", 1) + 1))
        assert torch.equal(steps[-1].x_adv, attack(model, x, y, seeds=range(5)))
        for step in steps:
            torch.testing.assert_close(step.loss, loss(model, step.x_adv, y))
            torch.testing.assert_close(step.probabilities, model(step.x_adv).softmax(1).detach())
            assert not step.loss.requires_grad and not step.probabilities.requires_grad


def test_a_trajectory_starts_at_the_scan_or_in_the_ball() -> None:
    model, x, y = net(), scans(), labels()
    assert torch.equal(next(FGSM().trajectory(model, x, y)).x_adv, x)
    assert torch.equal(next(PGD(random_start=False).trajectory(model, x, y)).x_adv, x)
    assert not torch.equal(next(PGD().trajectory(model, x, y)).x_adv, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_random_start_follows_from_the_seed_alone(norm: str) -> None:
    model, x, y = net(), scans(), labels()
    noise = noise_in_ball(x, EPS[norm], norm, [3, 4, 5, 6, 4])
    assert torch.equal(noise[1:2], noise_in_ball(x[:1], EPS[norm], norm, [4]))
    assert torch.equal(noise[1], noise[4]) and not torch.equal(noise[0], noise[1])
    assert (sizes(noise, norm) <= EPS[norm] + 1e-6).all()
    attack = PGD(eps=EPS[norm], alpha=ALPHA[norm], norm=norm, steps=2)
    together = attack(model, x, y, seeds=[3, 4, 5, 6, 7])
    assert torch.equal(together, attack(model, x, y, seeds=[3, 4, 5, 6, 7]))
    for i in range(5):
        alone = attack(model, x[i : i + 1], y[i : i + 1], seeds=[3 + i])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    assert not torch.equal(together, attack(model, x, y, seeds=[8, 9, 10, 11, 12]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_targeted_attack_raises_its_targets_probability(norm: str) -> None:
    model, x, target = net(), scans(), torch.full((5,), 2)
    with torch.no_grad():
        before = model(x).softmax(1)[:, 2]
        for attack in attacks(norm, targeted=True):
            assert (model(attack(model, x, target)).softmax(1)[:, 2] > before).all()


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_is_the_identity(norm: str, eight_bit: bool) -> None:
    model, x, y = net(), scans(), labels()
    for attack in (FGSM(0.0, norm, eight_bit=eight_bit), PGD(0.0, norm=norm, eight_bit=eight_bit)):
        assert torch.equal(attack(model, x, y), x)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.015), ("l2", 4.0)])
def test_an_8_bit_attack_survives_a_file(phantoms: Tensor, norm: str, eps: float) -> None:
    w = torch.randn(224 * 224, generator=torch.Generator().manual_seed(4))

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), 0.01 * (x.flatten(1) @ w)], dim=1)

    x, y = phantoms[:2], torch.tensor([0, 1])
    for attack in (
        FGSM(eps, norm, eight_bit=True),
        PGD(eps, alpha=eps / 5, norm=norm, eight_bit=True),
    ):
        x_adv = attack(model, x, y)
        for scan, attacked in zip(x, x_adv, strict=True):
            assert not torch.equal(scan, attacked)
            assert torch.equal(read_scan(to_png(attacked)), attacked)
        assert (sizes(x_adv - x, norm) <= eps + 1e-6).all()
        assert (loss(model, x_adv, y) > loss(model, x, y)).all()


def test_rounding_goes_toward_zero_and_keeps_whole_levels() -> None:
    x = torch.full((1, 1, 1, 6), 100 / 255)
    levels = torch.tensor([0.9, -0.9, 1.5, -3.825, 3.0, -3.0]).view_as(x)
    rounded = (to_eight_bit(x, x + levels / 255) - x) * 255
    expected = torch.tensor([0.0, 0, 1, -3, 3, -3]).view_as(x)
    torch.testing.assert_close(rounded, expected, atol=1e-3, rtol=0)
    # every whole level from every level arrives as it left
    grid = torch.arange(256.0) / 255
    for k in (-3, -1, 1, 3):
        moved = (grid + k / 255).clamp(0, 1).view(1, 1, 1, -1)
        expected = (torch.arange(256) + k).clamp(0, 255) / 255
        assert torch.equal(to_eight_bit(grid.view(1, 1, 1, -1), moved).flatten(), expected)


def test_eot_is_the_log_of_the_mean_probabilities() -> None:
    """The gradient of the probabilities is the mean of the draws' gradients."""
    model, x = net(), scans(2).requires_grad_()
    shifts = [torch.full_like(x, s).detach() for s in (-0.1, 0.0, 0.2)]
    draws = iter(shifts)
    averaged = eot(lambda x: model(x + next(draws)), 3)(x)
    probabilities = torch.stack([model(x + s).softmax(1) for s in shifts])
    torch.testing.assert_close(averaged, probabilities.mean(0).log())
    (grad,) = torch.autograd.grad(averaged.exp()[:, 1].sum(), x)
    parts = [torch.autograd.grad(p[:, 1].sum(), x, retain_graph=True)[0] for p in probabilities]
    torch.testing.assert_close(grad, torch.stack(parts).mean(0))


def test_eot_of_impossible_draws_stays_finite() -> None:
    averaged = eot(lambda x: x.flatten(1), 2)(torch.tensor([[1e4, -1e4]]))
    assert averaged[0].tolist() == pytest.approx([0.0, -2e4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(eps=-0.1), "eps must be at least 0 and finite, got -0.1"),
        (lambda: PGD(eps=math.nan), "eps must be at least 0 and finite, got nan"),
        (lambda: FGSM(eps=math.inf), "eps must be at least 0 and finite, got inf"),
        (lambda: PGD(alpha=math.inf), "must be positive and finite"),
        (lambda: PGD(norm="l1"), "norm must be one of linf, l2, got 'l1'"),
        (lambda: PGD(steps=0), "must be positive"),
        (lambda: PGD(alpha=0.0), "must be positive"),
        (lambda: eot(lambda x: x, 0), "eot_iter must be at least 1"),
        (lambda: PGD()(net(), scans(), labels(), seeds=[1]), "one seed per scan, got 1 for 5"),
    ],
)
def test_invalid_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
