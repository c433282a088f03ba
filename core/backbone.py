"""Backbones of the experts: timm networks with fewer strides for small inputs."""

from __future__ import annotations

import timm
from torch import nn

BACKBONES = ("resnet18", "mobilenetv2")
RESNET18_CHANNELS = (64, 128, 256, 512)
MOBILENETV2_CHANNELS = (1280,)  # of the last maps
FULL_SIDE = 224  # the side that both networks were made for
MIN_CELLS = 4  # along the side of a MobileNetV2's last maps


def check_backbone(name: str, channels: tuple[int, ...], smallest: int, pretrained: bool) -> None:
    """Raise ValueError for an unknown name, or channels or sides that the backbone cannot have."""
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
    if name == "mobilenetv2":
        if channels != MOBILENETV2_CHANNELS:
            raise ValueError(f"channels of mobilenetv2 must be (1280,), got {channels}")
    elif len(channels) != 4:
        raise ValueError(f"channels must name four stages, got {channels}")
    elif pretrained and (channels != RESNET18_CHANNELS or smallest < FULL_SIDE):
        raise ValueError("pretrained weights fit full-width experts at full resolution only")


def resnet18(side: int, in_chans: int, channels: tuple[int, ...], pretrained: bool) -> nn.Module:
    """Build a ResNet-18 for `side` pixels; at 224 and full width it is the published network.

    Otherwise its stem is a 3 x 3 convolution without max-pooling, of stride 2 from a side of 112
    on.
    """
    if side >= FULL_SIDE and channels == RESNET18_CHANNELS:
        full: nn.Module = timm.create_model(
            "resnet18", pretrained=pretrained, in_chans=in_chans, num_classes=0
        )
        return full
    width = channels[0]
    net: nn.Module = timm.create_model(
        "resnet18",
        in_chans=in_chans,
        num_classes=0,
        channels=channels,
        stem_type="deep",
        stem_width=width // 2,
    )
    stride = 2 if side >= 112 else 1
    net.conv1 = nn.Conv2d(in_chans, width, 3, stride=stride, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def list_stage_sides(side: int, channels: tuple[int, ...]) -> list[int]:
    """List the sides of the maps of a ResNet-18's four stages."""
    if side >= FULL_SIDE and channels == RESNET18_CHANNELS:
        first = side // 4
    else:
        first = side // 2 if side >= 112 else side
    return [-(-first // 2**i) for i in range(4)]


def mobilenetv2(side: int, in_chans: int, pretrained: bool) -> nn.Module:
    """Build a MobileNetV2 of the published width for `side` pixels.

    The first of its five convolutions of stride 2 get stride 1 until the last maps keep 4 x 4
    cells: two at 32 pixels, as is usual on CIFAR-10, none from 112 on. Pretrained weights fit
    every side.
    """
    net: nn.Module = timm.create_model(
        "mobilenetv2_100", pretrained=pretrained, in_chans=in_chans, num_classes=0
    )
    strided = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    while strided and -(-side // 2 ** len(strided)) < MIN_CELLS:
        strided.pop(0).stride = (1, 1)
    return net
