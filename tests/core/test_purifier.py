"""Purifier: depth follows the score, noise follows the seed, gradients pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.diffusion import Diffusion, to_model
from core.purifier import POLICIES, SAMPLERS, Purifier, PurifierConfig
from core.unet import UNet, UNetConfig

SEEDS = [11, 12, 13, 14]
DEPTHS = torch.tensor([12, 0, 5, 1])


class Ideal(nn.Module):
    """Exact noise predictor for a data set of one scan."""

    def __init__(self, scan: Tensor) -> None:
        super().__init__()
        self.scan = to_model(scan)
        self.diffusion = Diffusion()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a = self.diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        return (x_t - a.sqrt() * self.scan) / (1 - a).sqrt()


def tiny(**config: object) -> Purifier:
    torch.manual_seed(0)
    net = UNet(UNetConfig(unshuffle=2, channels=(8, 16), time_dim=16))
    nn.init.normal_(net.out.weight, std=0.05)
    return Purifier(net, Diffusion(), PurifierConfig(**config))


def scans() -> Tensor:
    """Draw scans away from 0 and 1, where clipping would stop gradients."""
    noise = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    return 0.3 + 0.4 * noise


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_depth_zero_is_the_identity(sampler: str) -> None:
    purifier, x = tiny(sampler=sampler), scans()
    assert torch.equal(purifier(x, torch.zeros(4, dtype=torch.long), SEEDS), x)
    mixed = purifier(x, DEPTHS, SEEDS)
    assert torch.equal(mixed[1], x[1])
    assert all(not torch.equal(mixed[i], x[i]) for i in (0, 2, 3))


@pytest.mark.parametrize("noises", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_scan_is_purified_alike_alone_and_in_a_batch(sampler: str, noises: int) -> None:
    purifier, x = tiny(sampler=sampler, noises=noises), scans()
    together = purifier(x, DEPTHS, SEEDS)
    for i in range(4):
        alone = purifier(x[i : i + 1], DEPTHS[i : i + 1], SEEDS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_the_noise(sampler: str) -> None:
    purifier, x, t = tiny(sampler=sampler), scans()[:1], torch.tensor([20])
    torch.manual_seed(5)
    first = purifier(x, t, [1])
    torch.manual_seed(6)  # the global generator plays no part
    assert torch.equal(first, purifier(x, t, [1]))
    assert not torch.allclose(first, purifier(x, t, [2]), atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_ideal_denoiser_removes_any_perturbation(sampler: str) -> None:
    """With a data set of one scan every sampler returns it, whatever was added."""
    clean = scans()[:1]
    purifier = Purifier(Ideal(clean), Diffusion(), PurifierConfig(sampler=sampler, noises=2))
    attacked = (clean + 0.1 * torch.sign(clean - 0.5)).expand(2, -1, -1, -1)
    pure = purifier(attacked, torch.tensor([30, 7]), [0, 1])
    torch.testing.assert_close(pure, clean.expand(2, -1, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradients_pass(sampler: str) -> None:
    x = scans().requires_grad_()
    tiny(sampler=sampler)(x, DEPTHS, SEEDS).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


def test_many_steps_keep_no_activations_and_lead_back_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backward pass of 12 steps recomputes the network, and its gradient is equal."""
    purifier, calls = tiny(sampler="ancestral"), [0]

    def count(*_: object) -> None:
        calls[0] += 1

    purifier.noise_pred.register_forward_pre_hook(count)

    def led_back() -> tuple[Tensor, int, int]:
        calls[0], x = 0, scans().requires_grad_()
        pure = purifier(x, DEPTHS, SEEDS)
        forward = calls[0]
        pure.square().sum().backward()
        assert x.grad is not None
        return x.grad, forward, calls[0]

    again, forward, both = led_back()
    assert both == 2 * forward == 2 * (int(DEPTHS.max()) + 1)
    monkeypatch.setattr("core.purifier.checkpoint", lambda net, *given, **_: net(*given))
    kept, forward, both = led_back()
    assert both == forward
    torch.testing.assert_close(again, kept)


def test_the_result_stays_in_0_1() -> None:
    pure = tiny()((scans() > 0.5).float(), torch.full((4,), 900), SEEDS)
    assert pure.min() >= 0 and pure.max() <= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_depth_never_falls_as_the_score_rises(policy: str) -> None:
    purifier = tiny(policy=policy, t_floor=20, t_min=50, t_max=100)
    score = torch.linspace(-3, 6, 901)
    t_star = purifier.t_star(score, tau=1.0, span=2.0)
    assert t_star.dtype == torch.int64
    assert (t_star.diff() >= 0).all()
    if policy == "picture":
        assert (t_star == purifier.config.t_picture).all()
        return
    assert (t_star[score <= 1] == (20 if policy == "floor" else 0)).all()
    assert t_star[score > 1].min() == 50
    assert (t_star[score > 3.01] == 100).all() and (t_star[score < 2.9] < 100).all()


def test_a_policy_can_be_asked_for() -> None:
    purifier, score = tiny(policy="floor"), torch.tensor([0.0, 2.0])
    assert purifier.t_star(score, 1.0, 1.0, "paper").tolist() == [0, 100]
    assert purifier.t_star(score, 1.0, 1.0).tolist() == [20, 100]


@pytest.mark.parametrize(
    ("t_star", "seeds", "message"),
    [
        ([1000, 1], [0, 1], r"\[0, 999\], got 1000"),
        ([5, -1], [0, 1], r"\[0, 999\], got -1"),
        ([5, 5], [0], "one seed"),
        ([5], [0, 1], "one t_star"),
    ],
)
def test_bad_depths_and_seeds_are_named(t_star: list[int], seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(scans()[:2], torch.tensor(t_star), seeds)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"policy": "none"}, "policy must be one of picture, paper, floor, got 'none'"),
        ({"sampler": "euler"}, "sampler must be one of"),
        ({"t_floor": 60}, "t_floor <= t_min"),
        ({"t_max": 1000}, "<= 999"),
        ({"t_picture": -1}, "t_picture must be in"),
        ({"steps": 0}, "at least 1"),
        ({"noises": 0}, "at least 1"),
    ],
)
def test_bad_configs_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PurifierConfig(**bad)
