"""Certificates by interval bounds: a small classifier whose answer provably no small change turns.

A scan is averaged to fewer pixels. Averaging is 1-Lipschitz in L-inf: bounds that hold for all
averages within eps hold for all scans within eps. They are propagated through the network as
intervals (interval bound propagation; Gowal et al. 2018). The network has few convolutions, and
maxima between them: a maximum widens no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import WEIGHTS, WeightsError
from core.scan import SIZE

FILE = "certified.safetensors"
LARGEST = 0.05  # eps that is tried
BISECTION_STEPS = 9  # of [0, LARGEST]: to 1e-4
LEAST_MARGIN = 1e-6  # that counts as proven: far above the rounding of double precision
Interval = tuple[Tensor, Tensor]  # middles and half-widths
Scale = tuple[Tensor, Tensor]  # what a norm multiplies by and adds, each (1, C, 1, 1)


@dataclass(frozen=True)
class IntervalConfig:
    """Shape: `channels`, `kernels` and `strides` of convolutions, maxima of 2 x 2 between them."""

    img_size: int = SIZE
    side: int = 56
    channels: tuple[int, ...] = (32, 64, 128)
    kernels: tuple[int, ...] = (5, 3, 3)
    strides: tuple[int, ...] = (2, 1, 1)

    def __post_init__(self) -> None:
        if self.side < 1 or self.img_size % self.side:
            raise ValueError(f"side must divide img_size, got {self}")
        if not self.channels or not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError(f"need a kernel and a stride for each of the channels, got {self}")
        if min(*self.channels, *self.strides) < 1 or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ValueError(f"channels and strides must be positive, kernels odd, got {self}")


class Certificate(NamedTuple):
    """Certified answer: no change of at most `eps` in each pixel of the scan turns it."""

    label: int
    eps: float  # the largest that was proven, at most `LARGEST`; 0: none


class IntervalNet(nn.Module):
    """Convolutions, each normalised by batches and followed by a ReLU, and a linear layer.

    The linear layer reads each channel's maximum and mean over the scan.
    """

    def __init__(self, config: IntervalConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = zip((1, *c.channels), c.channels, c.kernels, c.strides, strict=False)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)
            for a, b, kernel, stride in widths
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in c.channels)
        self.head = nn.Linear(2 * c.channels[-1], 2)
        for layer in (*self.convolutions, self.head):  # keeps the width of intervals (Shi 2021)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            nn.init.normal_(weight, std=math.sqrt(2 * math.pi) / weight[0].numel())
        nn.init.zeros_(self.head.bias)

    def pool(self, x: Tensor) -> Tensor:
        """Average scans (B, 1, H, W) in [0, 1] to (B, 1, side, side): 1-Lipschitz in L-inf."""
        return F.avg_pool2d(x, x.shape[-1] // self.config.side)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2) of scans (B, 1, H, W), or of averages (B, 1, side, side)."""
        return self.classify(x)[0]

    def classify(self, x: Tensor) -> tuple[Tensor, list[Scale]]:
        """Return logits as `forward` does, and how each layer was normalised."""
        h = self.pool(x)
        scales = []
        for index, (convolution, norm) in enumerate(self._list_layers()):
            h = convolution(h)
            scales.append(_read_norm(norm, h))
            h = self._reduce(norm(h).relu(), index)
        return self.head(h), scales

    def propagate(
        self, average: Tensor, eps: Tensor, scales: list[Scale] | None = None
    ) -> list[Interval]:
        """Return intervals for all averages (B, 1, side, side) within eps (B,).

        They are those before each ReLU, and last that of the log-odds (B,). Layers are normalised
        by `scales`, by default by the running statistics.
        """
        scales = scales or [_read_norm(norm) for _, norm in self._list_layers()]
        eps = eps.view(-1, 1, 1, 1)
        low, high = (average - eps).clamp(0, 1), (average + eps).clamp(0, 1)
        found: list[Interval] = []
        for index, (convolution, _) in enumerate(self._list_layers()):
            scale, shift = scales[index]
            middle = convolution((low + high) / 2) * scale + shift
            weight, stride, padding = convolution.weight, convolution.stride, convolution.padding
            half = F.conv2d((high - low) / 2, weight.abs(), None, stride, padding) * scale.abs()
            found.append((middle, half))
            low = self._reduce((middle - half).relu(), index)
            high = self._reduce((middle + half).relu(), index)
        odds = self.head.weight[1] - self.head.weight[0]
        bias = self.head.bias[1] - self.head.bias[0]
        middle, half = (low + high) / 2 @ odds + bias, (high - low) / 2 @ odds.abs()
        return [*found, (middle, half)]

    def bound(self, average: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        """Bound the margins of the labels (B,) from below, for all averages within eps (B,)."""
        middle, half = self.propagate(average, eps)[-1]
        return middle * (label.to(average) * 2 - 1) - half

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

        Raises:
            ValueError: the network is in training, where a batch changes its answers, or works in
                single precision, whose bounds would be no proof.
        """
        if self.training or {average.dtype, self.head.weight.dtype} != {torch.float64}:
            raise ValueError("a proof needs a network in eval mode, in double precision")
        label = self(average).argmax(1)
        low = torch.zeros(len(average), dtype=average.dtype, device=average.device)
        high = torch.full_like(low, LARGEST)
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            is_proven = self.bound(average, middle, label) > LEAST_MARGIN
            low, high = torch.where(is_proven, middle, low), torch.where(is_proven, high, middle)
        return label, low

    def _list_layers(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            yield convolution, norm

    def _reduce(self, h: Tensor, index: int) -> Tensor:
        """Take maxima of 2 x 2; after the last layer maximum and mean of each channel.

        Both grow with each input, so that those of an interval's ends are the ends of theirs.
        """
        if index + 1 < len(self.convolutions):
            return F.max_pool2d(h, 2)
        return torch.cat([h.amax((2, 3)), h.mean((2, 3))], 1)


def _read_norm(norm: nn.BatchNorm2d, h: Tensor | None = None) -> Scale:
    """Return what a norm multiplies by and adds: in training by the statistics of the batch `h`."""
    if norm.training and h is not None:
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0)
    else:
        assert norm.running_mean is not None and norm.running_var is not None
        variance, mean = norm.running_var, norm.running_mean
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    return scale[:, None, None], shift[:, None, None]


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
        if model.config.img_size != SIZE:
            raise ValueError(f"it reads scans of {model.config.img_size} pixels, not {SIZE}")
        model.eval()(torch.zeros(1, 1, SIZE, SIZE))
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{FILE} in {folder} does not fit this version: {error}") from None
    return model.double().to(device).eval().requires_grad_(False)
