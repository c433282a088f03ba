"""Gradient matching: it finds the scan where one gradient was sent, the same one every time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.leakage import GradientMatching
from core.leakage.matching import measure_variation

SIDE = 8


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.Sigmoid(), nn.Conv2d(12, 12, 3, padding=1, stride=2),
        nn.Sigmoid(), nn.Flatten(), nn.Linear(12 * 16, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scan() -> Tensor:
    line = torch.linspace(-1, 1, SIDE)
    return torch.exp(-(line[:, None] ** 2 + (line - 0.3) ** 2) / 0.3)[None, None]


def differentiate(net: nn.Module, x: Tensor) -> Sequence[Tensor]:
    loss = F.cross_entropy(net(x), torch.ones(len(x), dtype=torch.int64))
    return torch.autograd.grad(loss, list(net.parameters()), create_graph=True)


@pytest.mark.parametrize(
    "search",
    [
        GradientMatching(steps=300, smooth=1e-4),
        GradientMatching(steps=300, distance="euclidean"),
    ],
    ids=lambda s: s.distance,
)
def test_a_scan_is_rebuilt_from_its_gradient(
    search: GradientMatching, net: nn.Module, scan: Tensor
) -> None:
    sent = [t.detach() for t in differentiate(net, scan)]
    found = search(lambda x: differentiate(net, x), sent, scan.shape)
    error = (found.scans - scan).square().mean()
    assert error < 0.1 * (scan - scan.mean()).square().mean()
    assert found.scans.min() >= 0 and found.scans.max() <= 1
    again = search(lambda x: differentiate(net, x), sent, scan.shape)
    assert torch.equal(found.scans, again.scans) and found.distance == again.distance


def test_the_nearest_of_all_restarts_is_kept(net: nn.Module, scan: Tensor) -> None:
    sent = [t.detach() for t in differentiate(net, scan)]
    few = [
        GradientMatching(steps=5)(lambda x: differentiate(net, x), sent, scan.shape, seed)
        for seed in range(3)
    ]
    best = GradientMatching(steps=5, restarts=3)(lambda x: differentiate(net, x), sent, scan.shape)
    assert best.distance == min(one.distance for one in few)
    assert max(one.distance for one in few) > best.distance


def test_a_prior_decodes_what_is_searched(net: nn.Module, scan: Tensor) -> None:
    def decode(code: Tensor) -> Tensor:
        return F.interpolate(code, size=SIDE, mode="bilinear").clamp(0, 1)

    sent = [t.detach() for t in differentiate(net, scan)]
    found = GradientMatching(steps=20)(
        lambda x: differentiate(net, x), sent, (1, 1, 4, 4), decode=decode
    )
    assert found.scans.shape == scan.shape


def test_variation_counts_differences_of_neighbours() -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    assert float(measure_variation(x)) == 0.5 + 0.5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"distance": "l1"}, "distance must be one of"),
        ({"steps": 0}, "must be positive"),
        ({"restarts": 0}, "must be positive"),
        ({"size": 0.0}, "must be positive"),
        ({"smooth": -1.0}, "must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GradientMatching(**wrong)  # type: ignore[arg-type]
