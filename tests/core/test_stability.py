"""Stability: flips are flips, exact on linear models, independent of the batch, never random."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.moe import MixtureOfExperts, MoEConfig
from core.stability import LARGEST, RADII, StabilityConfig, find_flips

SIDE = 8
FORGIVEN = 1e-6  # of float32 in (x + eps) - x


def linear(odds: float, distance: float) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return log-odds w . (x - x0) + odds, and x0: the nearest flip lies `distance` away in L-inf.

    Along the sign of w the log-odds fall fastest, by distance * |w|_1.
    """
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    w = w / w.abs().sum() * abs(odds) / distance
    x0 = torch.full((1, 1, SIDE, SIDE), 0.5)  # far from black and white: nothing is clipped

    def logits(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), (x - x0).flatten(1) @ w + odds], dim=1)

    return logits, x0


@pytest.fixture(scope="module")
def mixture() -> MixtureOfExperts:
    torch.manual_seed(0)
    config = MoEConfig(img_size=32, sides=(32, 16), channels=(4, 4, 8, 8), hidden=8)
    model = MixtureOfExperts(config).eval()
    return model.requires_grad_(False)


def draw_scans(n: int) -> Tensor:
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("odds", [2.0, -0.3, 60.0])
@pytest.mark.parametrize("distance", [0.001, 0.0041, 0.0074, 0.0109, 0.0149])
def test_the_radius_of_a_linear_model_is_the_largest_below_its_distance(
    odds: float, distance: float
) -> None:
    """Odds of 60 leave no gradient of the cross-entropy, and one of the margin."""
    logits, x = linear(odds, distance)
    found = find_flips(logits, x)
    assert float(found.radius) == pytest.approx(max([0, *(r for r in RADII if r < distance)]))
    larger = min(r for r in RADII if r > distance)
    assert distance - FORGIVEN <= float(found.distance) <= float(torch.tensor(larger))


def test_nothing_is_found_beyond_the_largest_radius() -> None:
    logits, x = linear(1.0, 0.016)
    found = find_flips(logits, x)
    assert float(found.distance) == torch.inf and float(found.radius) == pytest.approx(RADII[-1])
    assert torch.equal(found.scans, x)


def test_flips_flip_the_answer_within_their_distance(mixture: MixtureOfExperts) -> None:
    x = draw_scans(12)
    bias = mixture(x).diff(dim=1).median()  # half of the scans on each side, all of them near
    logits = lambda z: mixture(z) - torch.stack([torch.zeros(()), bias])  # noqa: E731
    found = find_flips(logits, x)
    is_found = found.distance < torch.inf
    assert is_found.any()
    turned = logits(found.scans).argmax(1) != logits(x).argmax(1)
    assert torch.equal(turned, is_found)
    change = (found.scans - x).abs().flatten(1).amax(1)
    assert torch.allclose(change[is_found], found.distance[is_found])
    assert found.scans.min() >= 0 and found.scans.max() <= 1


def test_a_scan_is_judged_alike_alone_and_in_a_batch(mixture: MixtureOfExperts) -> None:
    x = draw_scans(5)
    together = find_flips(mixture, x)
    for i in range(5):
        alone = find_flips(mixture, x[i : i + 1])
        assert torch.equal(alone.radius[0], together.radius[i])


def test_the_network_stays_as_it_was(mixture: MixtureOfExperts) -> None:
    assert not mixture.training
    with torch.no_grad():  # as in `read`
        find_flips(mixture, draw_scans(2))
    assert not mixture.training and all(p.grad is None for p in mixture.parameters())


def test_more_classes_have_flips_to_any_other() -> None:
    weight = nn.functional.one_hot(torch.arange(3)).float()

    def logits(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] @ weight

    x = torch.full((1, 1, SIDE, SIDE), 0.5)
    x[0, 0, 0, :3] = torch.tensor([0.5, 0.4, 0.49])
    found = find_flips(logits, x)
    assert int(logits(found.scans).argmax()) == 2
    assert 0.005 - FORGIVEN <= float(found.distance) <= 0.0075 + FORGIVEN


@pytest.mark.parametrize("d", [0.0, -0.01, LARGEST + 0.001, float("nan")])
def test_a_radius_out_of_range_is_refused(d: float) -> None:
    with pytest.raises(ValueError, match="d must be above 0"):
        StabilityConfig(d=d)


def test_the_deciding_radius_is_tried() -> None:
    assert StabilityConfig(d=0.02).radii == (0.0075, 0.015, 0.02)
    assert StabilityConfig().radii == StabilityConfig(d=0.015).radii == (0.0075, 0.015)


def test_smaller_radii_are_tried_on_the_scans_that_the_largest_flips() -> None:
    logits, near = linear(1.0, 0.005)
    far = near + 0.1  # of log-odds far above 0
    sizes: list[int] = []

    def count(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return logits(x) + torch.stack([torch.zeros(len(x)), 1e3 * (x.mean((1, 2, 3)) > 0.55)], 1)

    found = find_flips(count, torch.cat([near, far]), steps=3)
    assert found.distance.isinf().tolist() == [False, True]
    assert (
        sizes == [2] * 4 + [1] * 4
    )  # a start and three steps each; the far scan has no second try


def test_a_flip_within_the_smaller_radius_is_the_nearest() -> None:
    logits, x = linear(1.0, 0.005)
    found = find_flips(logits, x, radii=(0.0075, 0.015))
    alone = find_flips(logits, x, radii=(0.0075,))
    assert float(found.distance) == pytest.approx(float(alone.distance), abs=FORGIVEN)
    torch.testing.assert_close(found.scans, alone.scans, atol=FORGIVEN, rtol=0)
