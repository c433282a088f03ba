"""Certificates by interval bounds: sound, exact where they can be, refused where they must."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import checkpoint, interval
from core.attacks import APGD
from core.checkpoint import WeightsError, halve
from core.interval import (
    FILE,
    LARGEST,
    LEAST_MARGIN,
    Certificate,
    IntervalConfig,
    IntervalNet,
)
from core.weights import save_part

SHAPES = [
    IntervalConfig(side=14, channels=(4, 6), kernels=(3, 1), strides=(1, 2)),
    IntervalConfig(side=28, channels=(4, 4, 6), kernels=(5, 3, 3), strides=(2, 1, 1)),
    IntervalConfig(side=7, channels=(3, 3), kernels=(3, 3), strides=(1, 1)),  # odd sides
]


def build(config: IntervalConfig, calm: float = 0.3) -> IntervalNet:
    """Build a network with small random weights and statistics, whose bounds are not endless."""
    torch.manual_seed(1)
    model = IntervalNet(config).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(calm * torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
    for norm in model.norms:
        assert isinstance(norm, torch.nn.BatchNorm2d)
        norm.weight.copy_(torch.rand_like(norm.weight) - 0.3)  # negative ones too
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(0.1 * torch.randn_like(norm.running_mean))
        norm.running_var.copy_(0.1 + torch.rand_like(norm.running_var))
    return model


def draw(model: IntervalNet, n: int = 6) -> Tensor:
    side = model.config.side
    x = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0))
    return x.double()


@pytest.fixture(params=SHAPES, ids=lambda c: f"{c.side}")
def model(request: pytest.FixtureRequest) -> IntervalNet:
    return build(request.param)


@pytest.mark.parametrize("size", [0.0, 0.004, 0.02])
def test_no_point_of_the_box_lies_outside_the_bounds(model: IntervalNet, size: float) -> None:
    x = draw(model)
    eps = torch.full((len(x),), size).double()
    bounds = model.propagate(x, eps)
    low, high = (bounds[-1][0] - bounds[-1][1], bounds[-1][0] + bounds[-1][1])
    tumour, healthy = torch.ones(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    generator = torch.Generator().manual_seed(2)
    for _ in range(200):
        step = torch.rand(x.shape, generator=generator).double() * 2 - 1
        z = model((x + size * step.sign()).clamp(0, 1))
        odds = z[:, 1] - z[:, 0]
        assert (odds >= low - 1e-9).all() and (odds <= high + 1e-9).all()
        assert (odds >= model.bound(x, eps, tumour) - 1e-9).all()
        assert (-odds >= model.bound(x, eps, healthy) - 1e-9).all()


def test_without_a_change_the_bounds_are_the_answer(model: IntervalNet) -> None:
    x = draw(model)
    z = model(x)
    odds, nothing = z[:, 1] - z[:, 0], torch.zeros(len(x)).double()
    label = z.argmax(1)
    torch.testing.assert_close(model.bound(x, nothing, label), odds * (label * 2 - 1))
    assert not any(half.any() for _, half in model.propagate(x, nothing))


def test_the_bound_is_exact_where_the_network_is_linear() -> None:
    """One convolution, every ReLU open, and no maximum read: a linear function of the average."""
    model = build(IntervalConfig(side=14, channels=(4,), kernels=(3,), strides=(1,)))
    for norm in model.norms:
        norm.bias.fill_(50.0)  # type: ignore[operator, union-attr]
    model.head.weight[:, :4] = 0  # the maxima
    for convolution in model.convolutions:
        convolution.weight.abs_()  # type: ignore[operator, union-attr]
        # equal signs: intervals lose nothing from one layer to the next
    model.norms[0].weight.abs_()  # type: ignore[operator, union-attr]
    model.head.weight[0] = 0
    model.head.weight[1].abs_()
    x, size = draw(model), 0.01
    eps = torch.full((len(x),), size).double()
    lowest = model((x - size).clamp(0, 1))
    found = model.bound(x, eps, torch.ones(len(x), dtype=torch.int64))
    torch.testing.assert_close(found, lowest[:, 1] - lowest[:, 0])


def test_in_training_points_and_intervals_are_normalised_alike() -> None:
    model = build(SHAPES[1]).train()
    x = draw(model)
    before = model.norms[0].running_mean.clone()  # type: ignore[operator, union-attr]
    nothing = torch.zeros(len(x)).double()
    logits, scales = model.classify(x)
    assert not torch.equal(model.norms[0].running_mean, before)  # type: ignore[arg-type]
    middle, _ = model.propagate(x, nothing, scales)[-1]
    torch.testing.assert_close(middle, logits[:, 1] - logits[:, 0])
    moved = model.propagate(x, nothing, model.classify((x + 0.3).clamp(0, 1))[1])
    assert not torch.allclose(moved[-1][0], middle)  # others' statistics
    running, _ = model.propagate(x, nothing)[-1]
    z = model.eval()(x)
    torch.testing.assert_close(running, z[:, 1] - z[:, 0])


def test_a_certified_answer_resists_an_attack_of_its_size(model: IntervalNet) -> None:
    x = draw(model, 12)
    label, eps = model.certify_averages(x)
    assert torch.equal(label, model(x).argmax(1)) and (eps >= 0).all() and (eps <= LARGEST).all()
    assert (eps > 0).any()
    for i in (eps > 0).nonzero()[:, 0].tolist():
        hit = APGD(float(eps[i]), 20, loss="margin")(model, x[i : i + 1], label[i : i + 1], [0])
        assert model(hit).argmax(1) == label[i]
    sure = model.bound(x, eps, label)
    assert (sure[eps > 0] > LEAST_MARGIN).all()
    alone = torch.cat([model.certify_averages(x[i : i + 1])[1] for i in range(len(x))])
    torch.testing.assert_close(alone, eps)


def test_the_proven_size_is_the_largest_to_the_step_of_the_bisection(model: IntervalNet) -> None:
    x = draw(model, 12)
    z = model(x)
    model.head.bias[1] -= (z[:, 1] - z[:, 0]).median()  # the scans lie about the threshold
    label, eps = model.certify_averages(x)
    inside = eps < LARGEST - 1e-4
    assert inside.any()
    assert (model.bound(x, eps + 1e-4, label)[inside] <= LEAST_MARGIN).all()


def test_a_margin_within_rounding_is_no_proof() -> None:
    model = build(SHAPES[1])
    model.head.weight.zero_()
    model.head.bias.copy_(torch.tensor([0.0, LEAST_MARGIN / 2]))
    label, eps = model.certify_averages(draw(model))
    assert label.all() and not eps.any()
    model.head.bias[1] = 2 * LEAST_MARGIN
    assert (model.certify_averages(draw(model))[1] > LARGEST - 1e-3).all()


def test_nothing_is_proven_in_training_or_in_single_precision() -> None:
    model = build(SHAPES[1])
    x, before = draw(model), copy.deepcopy(model.state_dict())
    for wrong, scans in ((model.train(), x), (copy.deepcopy(model).eval().float(), x.float())):
        with pytest.raises(ValueError, match="eval mode, in double precision"):
            wrong.certify_averages(scans)
    with pytest.raises(ValueError, match="double precision"):
        model.eval().certify_averages(x.float())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_averaging_never_enlarges_a_change() -> None:
    model = build(SHAPES[1])
    x = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(0)).double()
    moved = (x + 0.015 * (torch.rand_like(x) * 2 - 1).sign()).clamp(0, 1)
    assert (model.pool(moved) - model.pool(x)).abs().max() <= 0.015 + 1e-12
    assert model.pool(x).shape == (2, 1, 28, 28)


def test_a_scan_is_certified_as_its_average_is() -> None:
    model = build(SHAPES[1])
    scan = torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(3))
    found = model.certify(scan)
    label, eps = model.certify_averages(model.pool(scan[None].double()))
    assert found == Certificate(int(label), float(eps)) == model.certify(scan)


@pytest.mark.parametrize(
    "bad", [torch.rand(224, 224), torch.rand(1, 112, 112), torch.full((1, 224, 224), 1.5),
            torch.full((1, 224, 224), float("nan"))],
)  # fmt: skip
def test_what_is_no_scan_is_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="expected a scan"):
        build(SHAPES[1]).certify(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"side": 30}, "side must divide"),
        ({"channels": (4,)}, "a stride for each"),
        ({"channels": (), "kernels": (), "strides": ()}, "a stride for each"),
        ({"strides": (0, 1, 1)}, "must be positive"),
        ({"kernels": (4, 3, 3)}, "kernels odd"),
    ],
)
def test_bad_shapes_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntervalConfig(**bad)  # type: ignore[arg-type]


def write(folder: Path, model: IntervalNet) -> None:
    save_part(model, folder, FILE, asdict(model.config), "0" * 64)
    checkpoint.write_manifest(folder, [FILE], preset="tiny", protocol="patients", commit="none")


def test_what_is_proven_is_proven_of_the_stored_weights(tmp_path: Path) -> None:
    """Half precision changes the weights; the proof is of what is loaded, in double precision."""
    write(tmp_path, build(SHAPES[0]))
    loaded = interval.load(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}
    assert loaded.config == SHAPES[0] and not loaded.training
    stored = {n: halve(n, t).double() for n, t in build(SHAPES[0]).state_dict().items()}
    assert all(torch.equal(t.double(), stored[n]) for n, t in loaded.state_dict().items())


def test_weights_without_it_or_of_another_shape_say_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(WeightsError, match="no certified classifier"):
        interval.load(tmp_path)
    model = build(SHAPES[0])
    save_part(model, tmp_path, FILE, {"side": 14, "width": 3}, "0" * 64)
    checkpoint.write_manifest(tmp_path, [FILE], preset="t", protocol="patients", commit="none")
    with pytest.raises(WeightsError, match="does not fit this version"):
        interval.load(tmp_path)


@pytest.mark.parametrize("shape", [replace(SHAPES[0], img_size=112), replace(SHAPES[1], side=2)])
def test_a_network_that_reads_no_scan_of_ours_is_refused(
    shape: IntervalConfig, tmp_path: Path
) -> None:
    write(tmp_path, build(shape))
    with pytest.raises(WeightsError, match="does not fit this version"):
        interval.load(tmp_path)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, build(SHAPES[0]))
    data = bytearray((tmp_path / FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / FILE).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="sha256"):
        interval.load(tmp_path)
