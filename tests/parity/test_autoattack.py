"""APGD and Square mislead as many scans as their authors' code: half a point (`make parity`)."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor

from core.attacks import APGD, Square
from core.attacks.base import LogitsFn

autoattack = pytest.importorskip(
    "pyautoattack", reason="pyautoattack lives in its own environment: run make parity"
)
auto_pgd = pytest.importorskip(
    "adv_lib.attacks.auto_pgd", reason="adv-lib lives in its own environment: run make parity"
)
EPS = (0.02, 0.04)
HALF_A_POINT = 0.005


def robust(net: LogitsFn, x_adv: Tensor, x: Tensor, y: Tensor, eps: float) -> float:
    """Return the robust accuracy; check that no example left the ball."""
    assert (x_adv - x).abs().max() <= eps + 1e-6
    left = float((net(x_adv).argmax(1) == y).float().mean())
    assert 0.02 < left < 0.98, "an attack that all or nobody withstands compares nothing"
    return left


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("steps", [20, 50])
def test_apgd_on_the_cross_entropy(trained, readable, eps, steps):
    from pyautoattack.autopgd_base import APGDAttack

    x, y = readable
    attack = APGDAttack(trained, n_iter=steps, eps=eps, norm="Linf", loss="ce", device="cpu")
    theirs = robust(trained, attack.perturb(x, y), x, y, eps)
    second = auto_pgd.apgd(trained, x, y, eps, float("inf"), n_iter=steps, loss_function="ce")
    ours = robust(trained, APGD(eps, steps)(trained, x, y), x, y, eps)
    assert ours == pytest.approx(theirs, abs=HALF_A_POINT)
    assert ours == pytest.approx(robust(trained, second, x, y, eps), abs=HALF_A_POINT)


def test_apgd_in_l2(trained, readable):
    from pyautoattack.autopgd_base import APGDAttack

    x, y = readable
    attack = APGDAttack(trained, n_iter=50, eps=0.4, norm="L2", loss="ce", device="cpu")
    theirs = float((trained(attack.perturb(x, y)).argmax(1) == y).float().mean())
    x_adv = APGD(0.4, 50, norm="l2")(trained, x, y)
    assert (x_adv - x).flatten(1).norm(dim=1).max() <= 0.4 + 1e-5
    ours = float((trained(x_adv).argmax(1) == y).float().mean())
    assert 0.02 < ours < 0.98
    assert ours == pytest.approx(theirs, abs=HALF_A_POINT)


def test_square(trained, readable):
    """Both are random; with enough queries the accuracy does not depend on the draws.

    Theirs never reaches the last row and column, which the network therefore does not see.
    """
    from pyautoattack.square import SquareAttack

    def blind(z: Tensor) -> Tensor:
        return trained(F.pad(z[..., :-1, :-1], (0, 1, 0, 1), value=0.3))

    x, y = (part[:400] for part in readable)
    right = blind(x).argmax(1) == y
    x, y, eps = x[right], y[right], 0.03
    attack = SquareAttack(blind, eps=eps, n_queries=3000, norm="Linf", device="cpu")
    theirs = robust(blind, attack.perturb(x, y), x, y, eps)
    ours = robust(blind, Square(eps, 3000)(blind, x, y), x, y, eps)
    assert ours == pytest.approx(theirs, abs=HALF_A_POINT)
