"""Fixtures of the parity tests: a small trained network, and scans of two kinds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 16


def patterns(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw noise with a soft blob, left or right of the middle."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (count,), generator=g)
    line = torch.linspace(-1, 1, SIDE)
    centre = (y * 2 - 1) * 0.25 + 0.2 * torch.randn(count, generator=g)
    blob = torch.exp(-((line - centre[:, None]) ** 2) / 0.1)[:, None, :] * torch.exp(
        -(line**2) / 0.2
    ).view(1, -1, 1)
    noise = 0.08 * torch.randn(count, SIDE, SIDE, generator=g)
    return (0.35 + 0.25 * blob + noise).clamp(0, 1)[:, None], y


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 16, 2),
    )  # fmt: skip
    x, y = patterns(2000, 0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(150):
        rows = torch.arange(step * 100, step * 100 + 100) % len(x)
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def readable(trained: nn.Module) -> tuple[Tensor, Tensor]:
    """Select 1,000 scans that the network classifies right."""
    x, y = patterns(2000, 1)
    right = trained(x).argmax(1) == y
    assert right.float().mean() > 0.8
    return x[right][:1000], y[right][:1000]
