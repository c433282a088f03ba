"""APGD, Square, low-frequency PGD and BPDA: inside their ball, as strong as documented."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.attacks import APGD, PGD, LowFrequency, Square, straight_through
from core.attacks.base import LogitsFn, margin

EPS, SIDE = 0.03, 12
Attack = APGD | Square | LowFrequency
ATTACKS: list[Attack] = [
    APGD(EPS, 20),
    APGD(EPS, 20, loss="margin"),
    APGD(EPS, 10, restarts=3),
    Square(EPS, 200),
    Square(EPS, 200, until_wrong=False),
    LowFrequency(EPS, 4, 20),
]


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.Tanh(), nn.Linear(32, 3))
    return nn.Sequential(*layers).requires_grad_(False)


def scans(count: int = 6) -> Tensor:
    x = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return ((x * 1.4 - 0.2).clamp(0, 1) * 255).round() / 255


def labels(model: LogitsFn, x: Tensor) -> Tensor:
    return model(x).argmax(1)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_stays_in_the_ball_and_narrows_the_margin(attack: Attack) -> None:
    model, x = net(), scans()
    y = labels(model, x)
    before = x.clone()
    x_adv = attack(model, x, y)
    assert (x_adv - x).abs().max() <= EPS + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert (margin(model(x_adv), y) > margin(model(x), y)).all()
    assert torch.equal(x, before) and not x_adv.requires_grad


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_scan_is_attacked_the_same_alone_and_among_others(attack: Attack) -> None:
    model, x = net(), scans()
    y = labels(model, x)
    together = attack(model, x, y, seeds=range(6))
    alone = torch.cat([attack(model, x[[i]], y[[i]], seeds=[i]) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "attack", [APGD(EPS, 10, eight_bit=True), Square(EPS, 50, eight_bit=True),
               LowFrequency(EPS, 4, 10, eight_bit=True)], ids=str,
)  # fmt: skip
def test_with_eight_bits_the_result_survives_a_file(attack: Attack) -> None:
    model, x = net(), scans()
    x_adv = attack(model, x, labels(model, x))
    torch.testing.assert_close((x_adv * 255).round() / 255, x_adv, atol=1e-6, rtol=0)
    assert (x_adv - x).abs().max() <= EPS + 1e-6 and not torch.equal(x_adv, x)


def test_eps_zero_changes_nothing() -> None:
    model, x = net(), scans()
    y = labels(model, x)
    for attack in (APGD(0.0, 5), Square(0.0, 5), LowFrequency(0.0, 4, 5)):
        assert torch.equal(attack(model, x, y), x)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_apgd_finds_the_corner_of_a_linear_model(loss: str) -> None:
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(3))

    def model(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x.flatten(1) @ w], dim=1)

    x, y = scans(2), torch.tensor([0, 1])
    direction = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1) * w.sign().view(1, 1, SIDE, SIDE)
    wanted = margin(model((x + EPS * direction).clamp(0, 1)), y)
    found = margin(model(APGD(EPS, 50, loss=loss)(model, x, y)), y)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_apgd_is_no_weaker_than_pgd_with_as_many_steps() -> None:
    model, x = net(), scans(60)
    y = labels(model, x)
    pgd = margin(model(PGD(EPS, EPS / 8, 20)(model, x, y)), y)
    apgd = margin(model(APGD(EPS, 20)(model, x, y)), y)
    assert apgd.mean() >= pgd.mean() - 1e-3


def test_more_restarts_never_lose_a_scan() -> None:
    model, x = net(), scans(60)
    y = labels(model, x)
    few, many = (margin(model(APGD(EPS, 10, restarts=r)(model, x, y)), y) > 0 for r in (1, 4))
    assert (many | ~few).all() and few.any() and not many.all()


def test_the_start_follows_from_the_seed() -> None:
    model, x = net(), scans()
    y = labels(model, x)
    for attack in (APGD(EPS, 1), Square(EPS, 5), LowFrequency(EPS, 4, 1)):
        first, again, other = (attack(model, x, y, seeds=range(s, s + 6)) for s in (0, 0, 7))
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_square_asks_no_gradient_and_no_more_than_its_queries() -> None:
    model, asked = net(), 0

    def counted(x: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        assert not torch.is_grad_enabled()
        return model(x)

    x = scans()
    Square(EPS, 30, until_wrong=False)(counted, x, labels(model, x))
    assert asked == 30


def test_low_frequencies_hold_no_grain() -> None:
    model, x = net(), torch.full((2, 1, SIDE, SIDE), 0.5)
    delta = LowFrequency(EPS, 3, 10)(model, x, torch.tensor([0, 1])) - x
    steps = (delta[..., 1:] - delta[..., :-1]).abs().max()
    assert steps <= 2 * EPS / (SIDE / 3) + 1e-6 < EPS


def test_straight_through_is_exact_forward_and_the_identity_backward() -> None:
    x = scans(2).requires_grad_()
    out = straight_through(lambda z: (z * 4).round() / 4, x)
    assert torch.equal(out, (x * 4).round() / 4)
    (grad,) = torch.autograd.grad((out * 3).sum(), x)
    assert torch.equal(grad, torch.full_like(x, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: APGD(steps=0), "steps"), (lambda: APGD(restarts=0), "restarts"),
        (lambda: APGD(loss="dlr"), "ce, margin"), (lambda: APGD(rho=1.0), "rho"),
        (lambda: APGD(norm="l1"), "linf, l2"), (lambda: APGD(eps=-1), "eps"),
        (lambda: Square(queries=0), "queries"), (lambda: Square(share=0), "share"),
        (lambda: Square(eps=float("nan")), "eps"), (lambda: LowFrequency(grid=0), "grid"),
        (lambda: LowFrequency(steps=0), "steps"),
    ],
)  # fmt: skip
def test_invalid_numbers_are_refused(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()
