"""Certificates by interval bounds: a small classifier whose answer provably no small change turns.

A scan is averaged to fewer pixels. Averaging is 1-Lipschitz in L-inf: bounds that hold for all
averages within eps hold for all scans within eps. They are propagated through the network (interval
bound propagation, IBP; Gowal et al. 2018), and the margin once more backwards through linear bounds
of each ReLU (CROWN-IBP; Zhang et al. 2020); the better of the two counts. Both are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import WEIGHTS, WeightsError

FILE = "certified.safetensors"
LARGEST = 0.05  # eps that is tried
BISECTION_STEPS = 9  # of [0, LARGEST]: to 1e-4
LEAST_MARGIN = 1e-6  # that counts as proven: far above the rounding of double precision
Interval = tuple[Tensor, Tensor]  # middles and half-widths


@dataclass(frozen=True)
class IntervalConfig:
    """Shapes: `channels` and `strides` of 3 x 3 convolutions, then a layer of `hidden` units."""

    img_size: int = 224
    side: int = 28
    channels: tuple[int, ...] = (32, 32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1)
    hidden: int = 128

    def __post_init__(self) -> None:
        if self.side < 1 or self.img_size % self.side:
            raise ValueError(f"side must divide img_size, got {self}")
        if not self.channels or len(self.channels) != len(self.strides):
            raise ValueError(f"need one stride for each of the channels, got {self}")
        if min(*self.channels, *self.strides, self.hidden) < 1:
            raise ValueError(f"channels, strides and hidden must be positive, got {self}")


class Certificate(NamedTuple):
    """Certified answer: no change of at most `eps` in each pixel of the scan turns it."""

    label: int
    eps: float  # the largest that was proven, at most `LARGEST`; 0: none


class IntervalNet(nn.Module):
    """Convolutions and two linear layers, each but the last followed by a ReLU."""

    def __init__(self, config: IntervalConfig) -> None:
        super().__init__()
        self.config = c = config
        layers: list[nn.Module] = []
        width, side = 1, c.side
        for channels, stride in zip(c.channels, c.strides, strict=True):
            layers.append(nn.Conv2d(width, channels, 3, stride, 1))
            width, side = channels, (side + stride - 1) // stride
        layers += [nn.Linear(width * side**2, c.hidden), nn.Linear(c.hidden, 2)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def pool(self, x: Tensor) -> Tensor:
        """Average scans (B, 1, H, W) in [0, 1] to (B, 1, side, side): 1-Lipschitz in L-inf."""
        return F.avg_pool2d(x, x.shape[-1] // self.config.side)

    def forward(self, average: Tensor) -> Tensor:
        """Return logits (B, 2) of averages (B, 1, side, side)."""
        h = average
        for layer in self.layers[:-1]:
            h = _apply(layer, h).relu()
        return _apply(self.layers[-1], h)

    def propagate(self, average: Tensor, eps: Tensor) -> list[Interval]:
        """Return intervals before each ReLU, and of log-odds, for averages within eps (B,)."""
        middle, half = _build_box(average, eps)
        found: list[Interval] = []
        for layer in self.layers[:-1]:
            middle, half = _apply(layer, middle), _apply(layer, half, is_width=True)
            found.append((middle, half))
            low, high = (middle - half).relu(), (middle + half).relu()
            middle, half = (low + high) / 2, (high - low) / 2
        odds, bias = self._odds()
        return [*found, ((middle * odds).sum(1) + bias, (half * odds.abs()).sum(1))]

    def bound(self, average: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        """Bound the margins of the labels (B,) from below, for all averages within eps (B,)."""
        *hidden, (middle, half) = self.propagate(average, eps)
        sign = label.to(average) * 2 - 1
        return torch.maximum(
            middle * sign - half, self._bound_backwards(average, eps, sign, hidden)
        )

    def certify(self, scan: Tensor) -> Certificate:
        """Certify the answer to a scan (1, H, W) in [0, 1].

        Raises:
            ValueError: the scan is of another shape, or has values outside [0, 1].
        """
        shape = (1, *[self.config.img_size] * 2)
        if tuple(scan.shape) != shape or not bool(((scan >= 0) & (scan <= 1)).all()):
            raise ValueError(f"expected a scan {shape} in [0, 1], got {tuple(scan.shape)}")
        label, eps = self.certify_averages(self.pool(scan[None].double()))
        return Certificate(int(label), float(eps))

    @torch.no_grad()
    def certify_averages(self, average: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels (B,) and the largest proven eps (B,) of averages, float64, by bisection.

        The network must hold float64: bounds in single precision would be no proof.
        """
        label = self(average).argmax(1)
        low = torch.zeros(len(average), dtype=average.dtype, device=average.device)
        high = torch.full_like(low, LARGEST)
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            is_proven = self.bound(average, middle, label) > LEAST_MARGIN
            low, high = torch.where(is_proven, middle, low), torch.where(is_proven, high, middle)
        return label, low

    def _odds(self) -> Interval:
        """Return weights (hidden,) and bias of the log-odds of class 1."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last.weight[1] - last.weight[0], last.bias[1] - last.bias[0]

    def _bound_backwards(
        self, average: Tensor, eps: Tensor, sign: Tensor, hidden: Sequence[Interval]
    ) -> Tensor:
        """Bound sign * log-odds from below by a function that is linear in the average.

        Each ReLU on [l, u] is replaced by the line through its ends from above, and by 0 or the
        identity from below, whichever is closer.
        """
        odds, bias = self._odds()
        slope, constant = sign[:, None] * odds, sign * bias
        for index in range(len(hidden) - 1, -1, -1):
            layer, (middle, half) = self.layers[index], hidden[index]
            low, high = middle - half, middle + half
            is_open = (low < 0) & (high > 0)
            above = torch.where(is_open, high / (high - low).clamp_min(1e-300), (low >= 0).to(low))
            below = torch.where(is_open, (high > -low).to(low), (low >= 0).to(low))
            slope = slope.view(middle.shape)
            falling = slope.clamp_max(0)
            constant = constant - (falling * above * low * is_open).flatten(1).sum(1)
            slope = slope.clamp_min(0) * below + falling * above
            slope, added = _pull_back(layer, slope, hidden[index - 1][0] if index else average)
            constant = constant + added
        middle, half = _build_box(average, eps)
        return (slope * middle - slope.abs() * half).flatten(1).sum(1) + constant


def _build_box(average: Tensor, eps: Tensor) -> Interval:
    """Return the interval of pixels within eps (B,) and [0, 1]."""
    eps = eps.view(-1, 1, 1, 1)
    low, high = (average - eps).clamp(0, 1), (average + eps).clamp(0, 1)
    return (low + high) / 2, (high - low) / 2


def _apply(layer: nn.Module, x: Tensor, *, is_width: bool = False) -> Tensor:
    """Apply a layer to values, or to half-widths, which grow by its weights' absolute values."""
    weight = layer.weight.abs() if is_width else layer.weight  # type: ignore[operator]
    bias = None if is_width else layer.bias
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding)  # type: ignore[arg-type]
    return F.linear(x.flatten(1), weight, bias)  # type: ignore[arg-type]


def _pull_back(layer: nn.Module, slope: Tensor, before: Tensor) -> Interval:
    """Return slopes by a layer's input, shaped like `before`, and what its bias adds (B,)."""
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        added = (slope.sum((2, 3)) * layer.bias).sum(1)
        stride = int(layer.stride[0])
        rest = before.shape[-1] - ((slope.shape[-1] - 1) * stride + 1)
        return F.conv_transpose2d(slope, layer.weight, None, stride, 1, rest), added
    assert isinstance(layer, nn.Linear)
    return (slope @ layer.weight).view_as(before), slope @ layer.bias


def load(folder: str | Path | None = None, device: str | torch.device = "cpu") -> IntervalNet:
    """Load and verify the certified classifier of a folder of weights (default: published).

    Raises:
        WeightsError: the weights have none, or its file is missing, damaged or of another version.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    if FILE not in checkpoint.read_manifest(folder):
        raise WeightsError(
            f"These weights have no certified classifier, so no scan can be certified: "
            f"{folder} does not list {FILE}."
        )
    part = checkpoint.load_verified(FILE, folder)
    try:
        shape: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in part.config.items()}
        model = IntervalNet(IntervalConfig(**shape))
        model.load_state_dict(part.state_dict)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{FILE} in {folder} does not fit this version: {error}") from None
    return model.double().to(device).eval().requires_grad_(False)
