"""U-Net: keeps the picture's shape, depends on the time, passes gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from core.unet import UNet, UNetConfig, time_embedding


def tiny(in_chans: int = 1) -> UNet:
    """Build a U-Net that predicts other noise than zero."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(in_chans=in_chans, unshuffle=2, channels=(8, 16, 16), time_dim=16))
    nn.init.normal_(net.out.weight, std=0.1)
    return net


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
def test_the_noise_has_the_pictures_shape(in_chans: int, height: int, width: int) -> None:
    x = torch.rand(2, in_chans, height, width)
    assert tiny(in_chans)(x, torch.tensor([0, 999])).shape == x.shape


def test_a_fresh_one_predicts_zero() -> None:
    net = UNet(UNetConfig(unshuffle=2, channels=(8, 16), time_dim=16))
    assert not net(torch.rand(1, 1, 16, 16), torch.tensor([7])).any()


def test_gradients_reach_the_picture_and_every_parameter() -> None:
    net, x = tiny(), torch.rand(2, 1, 16, 16, requires_grad=True)
    net(x, torch.tensor([3, 500])).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_time_matters_to_each_scan_by_itself() -> None:
    net, x = tiny(), torch.rand(1, 1, 16, 16).expand(2, -1, -1, -1)
    early, late = net(x, torch.tensor([10, 500]))
    assert not torch.allclose(early, late, atol=1e-4)
    torch.testing.assert_close(net(x[:1], torch.tensor([500]))[0], late)


def test_time_embedding_by_hand() -> None:
    emb = time_embedding(torch.tensor([0, 3]), 4)
    assert emb.shape == (2, 4) and emb.dtype == torch.float32
    assert emb[0].tolist() == [0, 0, 1, 1]
    expected = [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    torch.testing.assert_close(emb[1], torch.tensor(expected))


def test_time_embedding_tells_all_steps_apart() -> None:
    emb = time_embedding(torch.arange(1000), 128)
    assert torch.cdist(emb, emb).fill_diagonal_(1).min() > 1e-2


@pytest.mark.parametrize(
    "bad", [{"channels": (8,)}, {"unshuffle": 0}, {"channels": (8, 12)}, {"time_dim": 15}]
)
def test_bad_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"time_dim|multiples of 8|two levels"):
        UNetConfig(**bad)
