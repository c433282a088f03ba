"""Mathematics of the diffusion process against independent closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from core.diffusion import Diffusion, seeded_noise, to_model, to_pixels

BETAS = np.linspace(1e-4, 2e-2, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)


@pytest.fixture(scope="module")
def diffusion() -> Diffusion:
    return Diffusion()


def at(*t: int) -> Tensor:
    return torch.tensor(t)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_betas_run_from_1e_4_to_2e_2(diffusion: Diffusion) -> None:
    assert diffusion.betas.shape == (1000,)
    assert diffusion.betas[0].item() == pytest.approx(1e-4)
    assert diffusion.betas[-1].item() == pytest.approx(2e-2)
    np.testing.assert_allclose(diffusion.alpha_bar.numpy(), ALPHA_BAR, rtol=1e-5)


def test_alpha_bar_strictly_decreases_in_0_1(diffusion: Diffusion) -> None:
    assert (diffusion.alpha_bar.diff() < 0).all()
    assert diffusion.alpha_bar.min() > 0 and diffusion.alpha_bar.max() < 1


@pytest.mark.parametrize("t", [0, 100, 999])
def test_q_sample_has_the_mean_and_variance_of_eq_17(diffusion: Diffusion, t: int) -> None:
    x_t = diffusion.q_sample(torch.full((1, 200_000), 0.7), at(t), draw(1, 200_000))
    assert x_t.var().item() == pytest.approx(1 - ALPHA_BAR[t], rel=0.02)
    assert x_t.mean().item() == pytest.approx(0.7 * ALPHA_BAR[t] ** 0.5, abs=0.01)


def test_predict_x0_inverts_q_sample(diffusion: Diffusion) -> None:
    x_0, noise, t = draw(3, 1, 8, 8), draw(3, 1, 8, 8, seed=1), at(0, 60, 400)
    x_t = diffusion.q_sample(x_0, t, noise)
    torch.testing.assert_close(diffusion.predict_x0(x_t, t, noise), x_0, atol=1e-4, rtol=0)


def test_the_implied_noise_is_the_noise_that_was_added(diffusion: Diffusion) -> None:
    x_0, noise, t = draw(3, 1, 8, 8), draw(3, 1, 8, 8, seed=1), at(5, 60, 400)
    x_t = diffusion.q_sample(x_0, t, noise)
    torch.testing.assert_close(diffusion.implied_noise(x_t, t, x_0), noise, atol=1e-4, rtol=0)


def test_ddim_follows_the_true_noise(diffusion: Diffusion) -> None:
    """A step to a lower t gives its x_t, to -1 gives x_0, each scan from its own t."""
    x_0, noise, t = draw(3, 1, 8, 8), draw(3, 1, 8, 8, seed=1), at(20, 60, 400)
    x_t = diffusion.q_sample(x_0, t, noise)
    lower = at(10, 0, 399)
    torch.testing.assert_close(
        diffusion.ddim_step(x_t, t, lower, noise),
        diffusion.q_sample(x_0, lower, noise),
        atol=1e-4,
        rtol=0,
    )
    end = diffusion.ddim_step(x_t, t, at(-1, -1, -1), noise)
    torch.testing.assert_close(end, x_0, atol=1e-4, rtol=0)


def test_p_sample_is_the_posterior_of_ho_et_al(diffusion: Diffusion) -> None:
    """q(x_{t-1} | x_t, x_0), Ho et al. 2020, Eq. 6-7: the form with x_0, not the code's own."""
    t, x_0, noise = 100, draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1)
    x_t = diffusion.q_sample(x_0, at(t, t), noise)
    beta, a, before = BETAS[t], ALPHA_BAR[t], ALPHA_BAR[t - 1]
    mean = before**0.5 * beta / (1 - a) * x_0 + (1 - beta) ** 0.5 * (1 - before) / (1 - a) * x_t
    still = diffusion.p_sample(x_t, at(t, t), noise, torch.zeros_like(x_t))
    torch.testing.assert_close(still, mean.float(), atol=1e-5, rtol=1e-4)
    moved = diffusion.p_sample(x_t, at(t, t), noise, torch.ones_like(x_t)) - still
    expected = torch.full_like(moved, (beta * (1 - before) / (1 - a)) ** 0.5)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_the_last_ancestral_step_adds_no_noise(diffusion: Diffusion) -> None:
    x_0, noise = draw(2, 1, 4, 4), draw(2, 1, 4, 4, seed=1)
    x_t = diffusion.q_sample(x_0, at(0, 0), noise)
    end = diffusion.p_sample(x_t, at(0, 0), noise, torch.full_like(x_t, 1e3))
    torch.testing.assert_close(end, x_0, atol=1e-4, rtol=0)


def test_sigma_is_the_noise_left_in_pixels(diffusion: Diffusion) -> None:
    assert diffusion.sigma(50) == pytest.approx(
        ((1 - ALPHA_BAR[50]) / ALPHA_BAR[50]) ** 0.5 / 2, rel=1e-4
    )


@pytest.mark.parametrize("t", [-1, 1000])
def test_t_outside_the_schedule_is_named(diffusion: Diffusion, t: int) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 999\], got {t}"):
        diffusion.check(t)


def test_a_bad_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="bad schedule"):
        Diffusion(beta_start=0.1, beta_end=0.01)


def test_pixels_survive_the_models_scale() -> None:
    x = torch.arange(256) / 255
    torch.testing.assert_close(to_pixels(to_model(x)), x, atol=1e-6, rtol=0)
    assert to_model(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]


def test_noise_follows_from_the_seed_alone() -> None:
    together = seeded_noise((1, 4, 4), [5, 6, 5])
    assert torch.equal(together[1:2], seeded_noise((1, 4, 4), [6]))
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    before = torch.get_rng_state()
    seeded_noise((1, 4, 4), [5])
    assert torch.equal(before, torch.get_rng_state())  # the global generator is left alone
