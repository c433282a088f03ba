"""Laws of the certificate: its bound, its radius, its ball, and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import checkpoint
from core.checkpoint import WeightsError
from core.diffusion import Diffusion
from core.smoothing import FILE, Smoothed, SmoothedConfig, load, lower_bound
from demo.phantom import draw_phantom

TINY = SmoothedConfig(sigma=0.25, unet_channels=(8, 8), time_dim=8, channels=(8, 8, 8, 8), hidden=8)


class Linear(Smoothed):
    """Linear classifier: tumour if the average's mean is above `cut`; its certificate is known."""

    cut = 0.5

    def forward(self, noised: Tensor) -> Tensor:
        margin = noised.flatten(1).sum(1) / self.inside.sum() - self.cut
        return torch.stack([-margin, margin], 1)

    def true_radius(self, scan: Tensor) -> float:
        """Return the L2 distance of the average to the plane."""
        return abs(float(scan.mean()) - self.cut) * self.reach  # the gradient's norm is 1 / reach


def flat(level: float) -> Tensor:
    return torch.full((1, 224, 224), level)


@pytest.fixture(scope="module")
def tiny() -> Smoothed:
    torch.manual_seed(0)
    model = Smoothed(TINY)
    torch.nn.init.normal_(model.noise_pred.out.weight, std=0.1)
    return model.eval()


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_bound_is_clopper_s_and_pearson_s(n: int, alpha: float) -> None:
    beta = pytest.importorskip("scipy.stats", reason="scipy is not installed").beta
    for k in sorted({0, 1, n // 2, int(0.9 * n), n - 1, n}):
        exact = beta.ppf(alpha, k, n - k + 1) if k else 0.0
        assert lower_bound(k, n, alpha) == pytest.approx(exact, rel=1e-9, abs=1e-15)


def test_the_bound_in_closed_form_and_by_the_binomial_itself() -> None:
    assert lower_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), rel=1e-12)
    p = lower_bound(8, 10, 0.05)
    tail = sum(math.comb(10, i) * p**i * (1 - p) ** (10 - i) for i in range(8, 11))
    assert tail == pytest.approx(0.05, rel=1e-9)
    assert lower_bound(0, 10, 0.05) == 0.0
    with pytest.raises(ValueError, match=r"k must be in \[0, 10\], got 11"):
        lower_bound(11, 10, 0.05)


# --- the ball ------------------------------------------------------------------------------------


def test_averaging_moves_no_pixel_further_than_the_scan_has_moved(tiny: Smoothed) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 1, 224, 224, generator=generator)
    for eps in (0.004, 0.015, 0.06):
        delta = eps * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
        delta[0] = eps  # all one way: the bound is met
        moved = tiny.pool((x + delta).double()) - tiny.pool(x.double())
        assert moved.abs().max() <= eps + 1e-6
        length = moved.flatten(1).norm(dim=1)
        assert bool((length <= tiny.reach * eps + 1e-5).all())
        assert float(length[0]) == pytest.approx(tiny.reach * eps, rel=1e-4)


# --- the certificate -----------------------------------------------------------------------------


def test_only_the_ellipse_is_read(tiny: Smoothed) -> None:
    y, x = (tiny.inside == 1).nonzero().T
    assert (int(y.max() - y.min()) + 1, int(x.max() - x.min()) + 1) == (26, 22)
    assert tiny.reach**2 == pytest.approx(len(x)) and len(x) < 28 * 28 * 0.6
    whole = Smoothed(SmoothedConfig(ellipse=(2.0, 2.0)))
    assert whole.reach == 28
    scan = torch.zeros(1, 1, 224, 224)
    scan[..., :8, :] = 1.0
    assert not tiny.pool(scan).any() and whole.pool(scan).any()


@pytest.mark.parametrize("level", [0.49, 0.508])
def test_a_plane_is_certified_up_to_its_distance_and_no_further(level: float) -> None:
    model, scan = Linear(TINY), flat(level)
    found = model.certify(scan, n=20_000)
    true = model.true_radius(scan)
    assert found.label == int(level > 0.5)
    assert 0.93 * true < found.radius <= true
    assert found.eps == pytest.approx(found.radius / model.reach)


def test_nothing_within_the_ball_turns_what_was_certified() -> None:
    model, scan = Linear(TINY), flat(0.51)
    found = model.certify(scan)
    assert found.label == 1 and found.eps > 0.005
    worst = scan - found.eps  # the worst that there is for this classifier
    for seed in range(20):
        counts = model.count_votes(model.pool(worst[None])[0], 500, seed)
        assert counts[1] > counts[0] - 3 * math.sqrt(500)
    beyond = model.count_votes(model.pool((scan - 2 * found.eps)[None])[0], 500, 0)
    assert beyond[0] > beyond[1]


def test_a_random_classifier_gets_no_certificate() -> None:
    model = Linear(TINY)
    said = [model.certify(flat(0.5), seed=seed) for seed in range(10)]
    assert all(c.label is None and c.radius == c.eps == 0 for c in said)


def test_choice_and_bound_come_from_other_noise_and_a_seed_repeats_both() -> None:
    drawn: list[Tensor] = []

    class Watching(Linear):
        def forward(self, noised: Tensor) -> Tensor:
            drawn.append(noised)
            return super().forward(noised)

    model, scan = Watching(TINY), flat(0.505)
    first = model.certify(scan, n0=100, n=100, seed=3)
    assert len(drawn) == 2 and not torch.equal(*drawn)
    read = torch.stack([d[..., model.inside == 1].flatten() for d in drawn])
    assert torch.corrcoef(read)[0, 1].abs() < 0.02
    assert model.certify(scan, n0=100, n=100, seed=3) == first
    assert torch.equal(drawn[1], drawn[3])
    assert not drawn[1][..., model.inside == 0].any()  # what is not read is not noised
    noise = (drawn[1][..., model.inside == 1] - 0.505) / TINY.sigma
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    model.certify(scan, n0=100, n=100, seed=4)
    assert not torch.equal(drawn[1], drawn[5])


def test_the_network_is_denoised_at_the_step_of_its_noise(tiny: Smoothed) -> None:
    diffusion = Diffusion()
    for sigma in (0.1, 0.25, 0.5):
        model = Smoothed(SmoothedConfig(sigma=sigma))
        assert diffusion.sigma(model.t) == pytest.approx(sigma, rel=0.02)
    x = tiny.pool(draw_phantom(1, tumour=True)[None])
    noise = tiny.inside * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    class Oracle(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return noise

    model = Smoothed(TINY)
    model.noise_pred = Oracle()  # type: ignore[assignment]
    assert torch.allclose(model.predict_noise(x + 0.25 * noise)[1], x, atol=5e-3)


def test_it_holds_no_statistics_and_reads_a_copy_alone_as_among_others(tiny: Smoothed) -> None:
    assert not any("running" in name for name in tiny.state_dict())
    noised = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = tiny(noised), torch.cat([tiny(x) for x in noised.split(1)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert int(tiny.count_votes(noised[0], 33, 0).sum()) == 33


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 0}, "n0 and n of 1 or more"),
        ({"alpha": 1.0}, r"alpha in \(0, 1\)"),
    ],
)
def test_what_makes_no_certificate_is_refused(
    tiny: Smoothed, options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny.certify(flat(0.5), **options)
    with pytest.raises(ValueError, match="expected a scan"):
        tiny.certify(flat(0.5)[:, :112])


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": 0.0},
        {"side": 30},
        {"side": 20},
        {"channels": (8, 8, 8, 12)},
        {"unshuffle": 8},
        {"ellipse": (0, 1)},
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SmoothedConfig(**{**asdict(TINY), **wrong})


# --- its file ------------------------------------------------------------------------------------


@pytest.fixture
def save(tiny: Smoothed, tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: int) -> Path:
        config = {**asdict(TINY), **changes}
        checkpoint.save(tmp_path / FILE, tiny.state_dict(), config, split_sha256="s")
        checkpoint.write_manifest(tmp_path, [FILE], preset="", protocol="", commit="")
        return tmp_path

    return write


def test_what_was_saved_certifies_as_it_did(tiny: Smoothed, save: Callable[..., Path]) -> None:
    again, scan = load(save()), draw_phantom(0, tumour=False)
    assert again.config == TINY and not again.training
    assert again.certify(scan, n=200) == tiny.certify(scan, n=200)


def test_weights_without_it_or_with_a_damaged_one_say_so(save: Callable[..., Path]) -> None:
    folder = save()
    data = bytearray((folder / FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / FILE).write_bytes(data)
    with pytest.raises(WeightsError, match=f"{FILE} is not the one that was published"):
        load(folder)
    with pytest.raises(WeightsError, match="does not fit this version"):
        load(save(hidden=16))
    with pytest.raises(WeightsError, match="does not fit this version"):
        load(save(colour=1))
    (folder / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(WeightsError, match="no smoothed classifier, so no scan can be certified"):
        load(folder)


@pytest.mark.parametrize("value", [torch.nan, -0.1, 1.5])
def test_what_is_no_scan_is_not_certified(tiny: Smoothed, value: float) -> None:
    scan = torch.zeros(1, 224, 224)
    scan[0, 100, 100] = value
    with pytest.raises(ValueError, match=r"expected a scan .* in \[0, 1\]"):
        tiny.certify(scan, n0=2, n=2)


def test_a_classifier_that_returns_nan_certifies_nothing(tiny: Smoothed) -> None:
    with torch.no_grad():
        next(tiny.expert.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="returned NaN or infinity"):
        tiny.certify(torch.zeros(1, 224, 224), n0=2, n=2)
