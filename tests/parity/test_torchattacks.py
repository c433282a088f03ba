"""Attacks against torchattacks: equal perturbed scans within 1e-5 (`make parity`)."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from core.attacks import FGSM, PGD

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its old requests warns of newer neighbours
    torchattacks = pytest.importorskip(
        "torchattacks", reason="torchattacks lives in its own environment: run make parity"
    )


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """Build a small fixed network, smooth, so that no sign depends on the last bit."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.Softplus(), nn.Conv2d(8, 8, 3), nn.Softplus(),
        nn.Flatten(), nn.Linear(8 * 12 * 12, 2),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def batch(net: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    x[0, :, :16] = 0  # the background of an MRI lies on the border of [0, 1]
    return x, torch.tensor([0, 1, 0, 1, 0, 1])


def same(ours: Tensor, theirs: Tensor, x: Tensor) -> None:
    assert (ours - x).abs().max() > 1e-3, "the attack did nothing"
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize(("eps", "alpha"), [(0.015, 0.003), (8 / 255, 2 / 255)])
def test_pgd_linf(net, batch, eps, alpha, steps):
    x, y = batch
    ours = PGD(eps, alpha, steps, random_start=False)(net, x, y)
    same(ours, torchattacks.PGD(net, eps, alpha, steps, random_start=False)(x, y), x)


@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize(("eps", "alpha"), [(0.5, 0.1), (1.0, 0.3)])
def test_pgd_l2(net, batch, eps, alpha, steps):
    x, y = batch
    ours = PGD(eps, alpha, steps, norm="l2", random_start=False)(net, x, y)
    same(ours, torchattacks.PGDL2(net, eps, alpha, steps, random_start=False)(x, y), x)


def test_targeted_pgd(net, batch):
    x, y = batch
    attack = torchattacks.PGD(net, 0.03, 0.01, 5, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    ours = PGD(0.03, 0.01, 5, random_start=False, targeted=True)(net, x, 1 - y)
    same(ours, attack(x, 1 - y), x)


@pytest.mark.parametrize("eps", [0.015, 8 / 255])
def test_fgsm(net, batch, eps):
    x, y = batch
    same(FGSM(eps)(net, x, y), torchattacks.FGSM(net, eps)(x, y), x)
