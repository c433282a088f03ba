"""The certified classifier's loss: clean first, then attacks and bounds that grow."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.interval import IntervalConfig, IntervalNet
from core.scan import to_uint8
from demo.phantom import draw_phantom
from tests.core.test_interval import SHAPES, build
from train.data.augment import AugmentConfig, augment
from train.data.dataset import Sample, ScanDataset
from train.phases.interval import IntervalTrainConfig, _attack_once, build_loss, build_validation
from train.trainer import FitConfig, ScheduledLoss, fit

NOTHING = AugmentConfig(
    rotation=0, scale=0, shift=0, stretch=0, flip=False, brightness=0, contrast=0, gamma=0,
    shading=0, noise=0, blur=0, erase=0,
)  # fmt: skip


@pytest.fixture
def model() -> IntervalNet:
    return build(SHAPES[0]).float().requires_grad_(True)


@pytest.fixture
def brains() -> ScanDataset:
    scans = np.concatenate([to_uint8(draw_phantom(i, tumour=i % 2 == 1)) for i in range(8)])
    labels = torch.arange(8) % 2
    return ScanDataset(scans, labels, [f"a/{y}" for y in labels.tolist()], range(8))


@pytest.fixture
def sample() -> Sample:
    x = torch.rand(4, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    return Sample(x, torch.tensor([0, 1, 1, 0]))


def measure(loss: ScheduledLoss, model: IntervalNet, sample: Sample, progress: float) -> Tensor:
    return loss.at(progress)(model, sample, torch.Generator().manual_seed(1))


def test_it_starts_with_clean_scans(model: IntervalNet, sample: Sample) -> None:
    loss = build_loss(IntervalTrainConfig(), NOTHING)
    clean = F.cross_entropy(model(model.pool(sample.x)), sample.y)
    torch.testing.assert_close(measure(loss, model, sample, 0.0), clean)
    bounds = build_loss(IntervalTrainConfig(tightness=0.0), NOTHING)
    later = [measure(bounds, model, sample, p).item() for p in (0.3, 0.6, 1.0)]
    assert clean.item() < later[0] < later[1] and later[1] == pytest.approx(later[2])


def test_wide_intervals_cost_while_the_size_grows(sample: Sample) -> None:
    model = build(SHAPES[0], calm=5.0).float()
    with_it, without = (
        [measure(build_loss(IntervalTrainConfig(tightness=t), NOTHING), model, sample, p).item()
         for p in (0.3, 1.0)]
        for t in (0.5, 0.0)
    )  # fmt: skip
    assert with_it[0] > without[0] and with_it[1] == pytest.approx(without[1])


def test_the_bounds_loss_is_that_of_the_worst_case(model: IntervalNet, sample: Sample) -> None:
    config = IntervalTrainConfig(bounds=1.0)
    found = measure(build_loss(config, NOTHING), model, sample, 1.0)
    average = model.pool(sample.x)
    middle, half = model.propagate(average, torch.full((4,), config.eps))[-1]
    worst = torch.stack([torch.zeros(4), middle - half * (sample.y * 2 - 1)], 1)
    torch.testing.assert_close(found, F.cross_entropy(worst, sample.y))
    found.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_in_training_attacked_points_are_learned_and_normalise_the_intervals(
    model: IntervalNet, sample: Sample
) -> None:
    """The loss, written out: attack, its cross-entropy, the worst case, and the wide intervals."""
    config = IntervalTrainConfig(eps=0.01, bounds=0.4, tightness=0.7, clean=0.0, full=0.5)
    twin = copy.deepcopy(model).train()
    found = measure(build_loss(config, NOTHING), model.train(), sample, 0.25)
    size, y, generator = 0.005, sample.y, torch.Generator().manual_seed(1)
    average = augment(twin.pool(sample.x), NOTHING, generator)
    hit = _attack_once(twin, average, y, size, generator)
    assert not torch.equal(hit, average)
    logits, scales = twin.classify(hit)
    *hidden, (middle, half) = twin.propagate(average, torch.full((4,), size), scales)
    worst = torch.nn.functional.softplus(half - middle * (y * 2 - 1)).mean()
    wide = sum((1 - 2 * size / width.mean()).clamp_min(0) for _, width in hidden) / len(hidden)
    wanted = 0.6 * F.cross_entropy(logits, y) + 0.4 * worst + 0.7 * 0.5 * wide
    torch.testing.assert_close(found, wanted)
    running = twin.eval().propagate(average, torch.full((4,), size))[-1][1]
    assert not torch.allclose(running, half)


def test_the_attack_starts_at_random(model: IntervalNet, sample: Sample) -> None:
    x = model.pool(sample.x)
    first, second = (
        _attack_once(model, x, sample.y, 0.02, torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_scans_are_augmented_before_they_are_attacked(model: IntervalNet, sample: Sample) -> None:
    darker = AugmentConfig(brightness=0.5)
    with_it, without = (
        measure(build_loss(IntervalTrainConfig(), changes), model, sample, 0.0)
        for changes in (darker, NOTHING)
    )
    assert not torch.allclose(with_it, without)


def test_the_size_grows_to_eps_between_its_shares() -> None:
    config = IntervalTrainConfig(clean=0.2, full=0.6)
    shares = [config.grow(p) for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert shares == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])


def test_the_attack_stays_near_and_raises_the_loss(model: IntervalNet, sample: Sample) -> None:
    x = model.pool(sample.x)
    hit = _attack_once(model, x, sample.y, 0.02, torch.Generator().manual_seed(0))
    assert (hit - x).abs().max() <= 0.02 + 1e-6 and hit.min() >= 0 and hit.max() <= 1
    assert F.cross_entropy(model(hit), sample.y) > F.cross_entropy(model(x), sample.y)


def test_the_attack_leaves_the_statistics_alone(model: IntervalNet, sample: Sample) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _attack_once(model, model.pool(sample.x), sample.y, 0.02, torch.Generator().manual_seed(0))
    assert model.training
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


def test_it_learns_and_its_validation_counts_what_is_proven(brains: ScanDataset) -> None:
    torch.manual_seed(0)
    net = IntervalNet(IntervalConfig(side=28, channels=(4, 4), kernels=(3, 3), strides=(2, 1)))
    validate = build_validation(brains, torch.device("cpu"))
    config = FitConfig(epochs=80, samples=8, batch_size=8, lr=1e-2, ema=0.0)
    loss = build_loss(IntervalTrainConfig(clean=0.98, full=1.0), NOTHING)
    history = fit(
        net, brains, loss, config, validate=validate,
        report=lambda _: None, device=torch.device("cpu"),
    )  # fmt: skip
    assert history[-3]["loss"] < history[0]["loss"] / 2 and history[-3]["clean"] == 1.0
    for figures in history:
        assert 0 <= figures["certified"] <= figures["clean"] <= 1
        assert figures["score"] == pytest.approx(figures["certified"] + figures["clean"] / 100)


def test_validation_counts_what_a_certificate_proves_weighted_as_in_training() -> None:
    model = build(IntervalConfig(side=28, channels=(4, 4), kernels=(3, 3), strides=(2, 1)))
    scans = np.concatenate([to_uint8(draw_phantom(i, tumour=i % 2 == 1)) for i in range(12)])
    average = model.pool(torch.from_numpy(scans)[:, None].double() / 255)
    z = model(average)
    model.head.bias[1] -= (z[:, 1] - z[:, 0]).median()
    said, sizes = model.certify_averages(average)
    y = said.clone()
    y[:3] = 1 - y[:3]  # three that it reads wrong
    data = ScanDataset(scans, y, [f"a/{label}" for label in y.tolist()], [0] * 6 + [*range(6)])
    eps = float(sizes[3:].median())
    found = build_validation(data, torch.device("cpu"), eps - 1e-4)(model.float())
    weights = data.weights / data.weights.sum()
    right = said == y
    proven = right & (sizes >= eps - 1e-4)
    assert 0 < found["certified"] < found["clean"] < 1
    assert found["clean"] == pytest.approx(float(weights @ right.double()))
    assert found["certified"] == pytest.approx(float(weights @ proven.double()))


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"eps": 0.0}, "eps above 0"), ({"tightness": -1.0}, "tightness of 0"),
     ({"bounds": 0.0}, "bounds in"),
     ({"bounds": 1.5}, "bounds in"), ({"clean": 0.7, "full": 0.7}, "clean < full")],
)  # fmt: skip
def test_bad_settings_are_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntervalTrainConfig(**bad)
