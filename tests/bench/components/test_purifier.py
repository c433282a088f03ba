"""Filters against SciPy, energies against closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from bench.components.lesions import measure_contrast
from bench.components.purifier import (
    measure_accuracy,
    measure_denoising,
    measure_energy,
    measure_fidelity,
)
from bench.robustness import filters
from core.purifier import Purifier


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 1, 40, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_gaussian_is_that_of_scipy(picture, sigma):
    radius = max(1, round(3 * sigma))
    expected = ndimage.gaussian_filter(picture[0, 0].numpy(), sigma, mode="mirror", radius=radius)
    assert np.allclose(filters.gaussian(picture, sigma)[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("side", [3, 5])
def test_median_is_that_of_scipy(picture, side):
    expected = ndimage.median_filter(picture[0, 0].numpy(), side, mode="mirror")
    assert np.array_equal(filters.median(picture, side)[0, 0].numpy(), expected)


def test_jpeg_loses_more_at_lower_quality(picture):
    smooth = filters.gaussian(picture, 2.0)
    errors = [float((filters.jpeg(smooth, q) - smooth).square().mean()) for q in (95, 50, 5)]
    assert errors == sorted(errors)
    assert errors[0] < 1e-4


def test_energy_of_filters_with_known_answers(pipeline, test_fold):
    known = {
        "identity": lambda x: x,
        "half": lambda x: x / 2,
        "black": torch.zeros_like,
    }
    row = measure_energy(pipeline, test_fold.thin(4), known, 4)
    assert row["identity"]["removed"] == 0.0
    assert row["identity"]["removed_and_faithful"] == 0.0
    assert row["half"]["removed"] == pytest.approx(0.75, abs=1e-5)
    assert row["black"]["removed"] == 1.0
    assert row["black"]["removed_and_faithful"] < -100  # a black scan is no purification


def test_denoising_gives_the_purifier_the_noise_that_filters_get(pipeline, test_fold):
    row = measure_denoising(
        pipeline, test_fold, {"gaussian": lambda x: filters.gaussian(x, 1.5)}, 4
    )
    assert row["psnr"].keys() == {"noisy", "purifier", "gaussian"}
    assert row["psnr"]["gaussian"]["mean"] > row["psnr"]["noisy"]["mean"]
    # a network that predicts no noise at all returns the noisy scan itself
    silent = Purifier(
        lambda x, t: torch.zeros_like(x), pipeline.purifier.diffusion, pipeline.purifier.config
    )
    few = test_fold.thin(2)
    x, _, seeds = few.batches(2, pipeline.device)[0]
    returned = silent(x, torch.full((2,), 50), seeds)
    noisy = measure_denoising(pipeline, few, {"same": lambda z: z}, 2)
    mse = (returned - x).double().square().flatten(1).mean(1)
    assert float((-10 * mse.log10()).mean()) == pytest.approx(
        noisy["psnr"]["same"]["mean"], abs=1e-3
    )


def test_accuracy_behind_an_identity_is_that_of_nothing(pipeline, test_fold):
    systems = measure_accuracy(pipeline, test_fold, {"identity": lambda x: x})["systems"]
    assert systems["identity"] == systems["nothing"]
    assert systems["purifier"]["clean"]["n"] == len(test_fold)


def test_fidelity_falls_with_depth(pipeline, test_fold):
    c = pipeline.purifier.config
    psnr = measure_fidelity(pipeline, test_fold.thin(4))["psnr"]
    assert psnr[f"t = {c.t_floor}"]["mean"] > psnr[f"t = {c.t_max}"]["mean"]


def test_contrast_is_the_difference_to_the_ring():
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 20:40] = True
    x = torch.full((1, 64, 64), 0.3)
    x[0][mask] = 0.7
    assert measure_contrast(x, mask) == pytest.approx(0.4, abs=1e-6)
    assert measure_contrast(replace_all(x, 0.5), mask) == pytest.approx(0.0, abs=1e-6)


def replace_all(x, value):
    return torch.full_like(x, value)
