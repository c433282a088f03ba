"""Backbones: equal to timm's at full size, with fewer strides for small inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry
from torch import Tensor, nn

from core.backbone import MOBILENETV2_CHANNELS, RESNET18_CHANNELS, mobilenetv2, resnet18
from core.moe import Expert, MixtureOfExperts, MoEConfig, mixture_loss

FULL = MoEConfig(sides=(224,), channels=RESNET18_CHANNELS)
MOBILE = MoEConfig(
    img_size=32,
    in_chans=3,
    num_classes=10,
    sides=(32, 16),
    channels=MOBILENETV2_CHANNELS,
    backbone="mobilenetv2",
)
PEERS = {"resnet18": "resnet18", "mobilenetv2": "mobilenetv2_100"}  # timm's names
WIDTHS = {"resnet18": RESNET18_CHANNELS, "mobilenetv2": MOBILENETV2_CHANNELS}


def build_config(backbone: str) -> MoEConfig:
    return replace(FULL, backbone=backbone, channels=WIDTHS[backbone])


@pytest.mark.parametrize("backbone", PEERS)
def test_a_full_expert_is_timms_network(backbone: str) -> None:
    torch.manual_seed(0)
    expert = Expert(build_config(backbone), 224).eval()
    peer = timm.create_model(PEERS[backbone], in_chans=1, num_classes=0).eval()
    peer.load_state_dict(expert.backbone.state_dict())
    x = torch.rand(2, 1, 224, 224)
    with torch.no_grad():
        features = peer((x - 0.2) / 0.2)
        answer = expert.answer(x)
        torch.testing.assert_close(answer.features, features)
        assert features.std() > 0 and torch.equal(expert(x), expert.head(answer.features))
    widths = [(m.in_features, m.out_features) for m in expert.head if isinstance(m, nn.Linear)]
    assert widths == [(WIDTHS[backbone][-1], 256), (256, 2)]


@pytest.mark.parametrize("side", [224, 112, 56, 28])
def test_small_resnets_keep_their_resolution(side: int) -> None:
    channels = RESNET18_CHANNELS if side == 224 else (8, 8, 8, 8)
    net = resnet18(side, 1, channels, False).eval()
    grids: list[int] = []
    net.layer1.register_forward_hook(lambda _, __, out: grids.append(out.shape[-1]))
    net(torch.rand(1, 1, side, side))
    assert grids == [28 if side == 28 else 56]


@pytest.mark.parametrize(
    ("side", "cells", "strides"),
    [
        (224, 7, 5),
        (112, 4, 5),
        (56, 4, 4),
        (32, 4, 3),
        (28, 4, 3),
        (16, 4, 2),
        (7, 4, 1),
        (4, 4, 0),
    ],
)
def test_small_mobilenets_end_in_four_by_four_cells(side: int, cells: int, strides: int) -> None:
    net = mobilenetv2(side, 3, False).eval()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.stride == (2, 2) for m in convolutions) == strides
    with torch.no_grad():
        assert net.forward_features(torch.rand(1, 3, side, side)).shape == (1, 1280, cells, cells)


def test_on_cifar_the_stem_and_the_next_convolution_keep_all_pixels() -> None:
    net = mobilenetv2(32, 3, False)
    assert net.conv_stem.stride == net.blocks[1][0].conv_dw.stride == (1, 1)
    assert all(net.blocks[i][0].conv_dw.stride == (2, 2) for i in (2, 3, 5))


def test_a_mixture_of_mobilenets_learns() -> None:
    torch.manual_seed(0)
    model = MixtureOfExperts(MOBILE)
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 3, 9, 3])
    output = model.outputs(x)
    assert output.logits.shape == (4, 10) and output.expert_logits.shape == (4, 2, 10)
    mixture_loss(output, y, model, beta=0.0, gamma=0.0).backward()
    for expert in model.experts:
        assert expert.backbone.conv_stem.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("backbone", "side", "stem"),
    [
        ("resnet18", 224, "conv1"),
        ("mobilenetv2", 224, "conv_stem"),
        ("mobilenetv2", 32, "conv_stem"),
    ],
)
def test_pretrained_loads_imagenet_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbone: str, side: int, stem: str
) -> None:
    """timm loads a local file instead of the published one."""
    torch.manual_seed(7)
    published: dict[str, Tensor] = timm.create_model(PEERS[backbone]).state_dict()
    save_file(published, tmp_path / "published.safetensors")
    local = replace(
        timm.get_pretrained_cfg(PEERS[backbone]), file=str(tmp_path / "published.safetensors")
    )
    name = timm.get_pretrained_cfg(PEERS[backbone]).architecture
    for known in _registry._model_pretrained_cfgs:
        if known.split(".")[0] == name:
            monkeypatch.setitem(_registry._model_pretrained_cfgs, known, local)
    torch.manual_seed(0)
    config = replace(build_config(backbone), img_size=side, sides=(side,), pretrained=True)
    loaded = Expert(config, side).backbone.state_dict()
    for key, value in loaded.items():
        # one grey channel sees what three equal ones saw
        same = published[key].sum(1, keepdim=True) if key == f"{stem}.weight" else published[key]
        torch.testing.assert_close(value, same, msg=key)
