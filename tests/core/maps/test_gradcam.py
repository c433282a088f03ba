"""Grad-CAM: equal to a closed form where there is one, and aligned with the scan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.backbone import MOBILENETV2_CHANNELS
from core.maps.gradcam import compute_class_log_odds, grad_cam, resize_to_scan, weigh_maps
from core.moe import MixtureOfExperts, MoEConfig
from core.pipeline import MedFedPure

SIDES = (112, 56, 28)
WIDTH = 8


@pytest.fixture
def mixture() -> MixtureOfExperts:
    """Build experts whose heads pass the pooled features to their last layer.

    A backbone ends in a ReLU, so the head's own ReLU changes nothing and the log-odds are linear in
    the maps.
    """
    torch.manual_seed(0)
    config = MoEConfig(sides=SIDES, channels=(WIDTH,) * 4, hidden=WIDTH, attention_hidden=4)
    model = MixtureOfExperts(config).eval().requires_grad_(False)
    for expert in model.experts:
        expert.head[1].weight.copy_(torch.eye(WIDTH))
        expert.head[1].bias.zero_()
    for network in model.attention:
        nn.init.normal_(network[-1].weight)
    return model


@pytest.mark.parametrize("label", [0, 1])
def test_a_linear_heads_map_is_known(
    mixture: MixtureOfExperts, phantoms: Tensor, label: int
) -> None:
    cams = grad_cam(mixture, phantoms, torch.full((4,), label))
    values = []
    for k, expert in enumerate(mixture.experts):
        rows = expert.head[3].weight
        towards = rows[label] - rows[1 - label]
        known = torch.einsum("d,bdhw->bhw", towards, expert.stages(phantoms)[-1]).relu()
        torch.testing.assert_close(cams.experts[:, k], resize_to_scan(known, 224, expert.side))
        values.append(known.flatten())
    assert torch.cat(values).max() > 0 and (torch.cat(values) == 0).any()  # both sides of the ReLU
    attention = mixture.outputs(phantoms).attention
    weighted = torch.einsum("bk,bkhw->bhw", attention, cams.experts)
    torch.testing.assert_close(cams.mixture, weighted)
    assert attention.std(0).max() > 0.001  # scans differ in it


def test_a_maps_mean_is_its_share_of_the_log_odds(
    mixture: MixtureOfExperts, phantoms: Tensor
) -> None:
    """Without clipping and bias the mean over the cells is the log-odds."""
    expert = mixture.experts[1]
    expert.head[3].weight[0].zero_()
    expert.head[3].weight[1].fill_(0.5)  # everything speaks for class 1
    maps = expert.stages(phantoms)[-1].requires_grad_()
    logits = expert.head(maps.mean((2, 3)))
    (grad,) = torch.autograd.grad(
        compute_class_log_odds(logits, torch.ones(4, dtype=torch.long)).sum(), maps
    )
    bias = expert.head[3].bias[1] - expert.head[3].bias[0]
    torch.testing.assert_close(
        weigh_maps(maps, grad).mean((1, 2)), logits[:, 1] - logits[:, 0] - bias
    )


def test_maps_have_the_scans_size_and_are_never_negative(
    tiny_system: MedFedPure, phantoms: Tensor
) -> None:
    model = tiny_system.classifier.model
    cams = grad_cam(model, phantoms, torch.tensor([0, 1, 0, 1]))
    assert cams.mixture.shape == (4, 224, 224) and cams.experts.shape == (
        4,
        len(model.experts),
        224,
        224,
    )
    assert cams.experts.min() >= 0 and cams.experts.max() > 0
    assert not cams.mixture.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_nothing_is_shown_where_the_output_does_not_depend_on_the_scan(
    mixture: MixtureOfExperts, phantoms: Tensor
) -> None:
    mixture.experts[0].head[3].weight.zero_()
    cams = grad_cam(mixture, phantoms, torch.ones(4, dtype=torch.long))
    assert (cams.experts[:, 0] == 0).all() and (cams.experts[:, 1] > 0).any()


def test_a_callers_settings_do_not_matter(mixture: MixtureOfExperts, phantoms: Tensor) -> None:
    y = torch.ones(4, dtype=torch.long)
    with torch.no_grad():
        inside = grad_cam(mixture, phantoms, y)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(inside.mixture, grad_cam(mixture, phantoms, y).mixture)
    alone = grad_cam(mixture, phantoms[2:3], y[:1])
    torch.testing.assert_close(alone.mixture[0], inside.mixture[2], atol=1e-5, rtol=1e-4)


def test_log_odds_of_two_and_of_more() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    probabilities = logits.softmax(1)[0]
    for label in range(3):
        p = probabilities[label]
        expected = (p / (1 - p)).log()
        torch.testing.assert_close(
            compute_class_log_odds(logits, torch.tensor([label]))[0], expected
        )
    assert compute_class_log_odds(torch.tensor([[1.0, 3.5]]), torch.tensor([1])) == 2.5


@pytest.mark.parametrize(("side", "cells"), [(224, 7), (112, 7), (56, 7), (28, 4)])
def test_cells_are_placed_where_they_look(side: int, cells: int) -> None:
    """A map of the cells' centres becomes the pixels' coordinates."""
    zoom = 224 // side
    stride = 32 if side == 224 else 16 if side == 112 else 8
    centres = zoom * stride * torch.arange(cells, dtype=torch.float32) + (zoom - 1) / 2
    pixels = torch.arange(224.0)
    inside = (pixels >= centres[0]) & (pixels <= centres[-1])
    across = resize_to_scan(centres.expand(1, cells, cells), 224, side)[0]
    torch.testing.assert_close(across[0][inside], pixels[inside], atol=1e-3, rtol=0)
    down = resize_to_scan(centres[:, None].expand(1, cells, cells), 224, side)[0]
    torch.testing.assert_close(down[inside, 0], pixels[inside], atol=1e-3, rtol=0)


@pytest.mark.parametrize("k", range(len(SIDES)))
def test_those_centres_are_the_networks_own(
    mixture: MixtureOfExperts, phantoms: Tensor, k: int
) -> None:
    """A cell is placed at the centre of its gradient's energy over the pixels."""
    expert = mixture.experts[k]
    x = phantoms.clone().requires_grad_()
    maps = expert.stages(x)[-1]
    cell = maps.shape[-1] // 2
    (grad,) = torch.autograd.grad(maps[:, :, cell, cell].sum(), x)
    energy = grad.square().sum((0, 1))
    pixels = torch.arange(224.0)
    found = (energy.sum(0) @ pixels / energy.sum(), energy.sum(1) @ pixels / energy.sum())
    marked = torch.zeros(1, *maps.shape[-2:])
    marked[0, cell, cell] = 1
    rows, columns = (resize_to_scan(marked, 224, expert.side)[0] > 0.9).nonzero().float().mean(0)
    usual = (cell + 0.5) * 224 / maps.shape[-1]
    for axis, shown in zip(found, (columns, rows), strict=True):
        assert abs(axis - shown) < 8
        assert abs(axis - shown) < abs(axis - usual)  # better than cells spread evenly


def test_a_client_s_mobilenets_are_shown_too() -> None:
    torch.manual_seed(0)
    config = MoEConfig(
        img_size=32, sides=(32, 16), channels=MOBILENETV2_CHANNELS,
        backbone="mobilenetv2", gate="client",
    )  # fmt: skip
    model = MixtureOfExperts(config).eval()
    model.attention.set_weights(torch.tensor([0.25, 0.75]))
    cams = grad_cam(model, torch.rand(2, 1, 32, 32), torch.tensor([0, 1]))
    assert cams.experts.shape == (2, 2, 32, 32) and cams.experts.amax((0, 2, 3)).min() > 0
    torch.testing.assert_close(cams.mixture, 0.25 * cams.experts[:, 0] + 0.75 * cams.experts[:, 1])


@pytest.mark.parametrize(("img_size", "side"), [(224, 112), (224, 56), (224, 28), (32, 32)])
def test_a_mobilenets_centres_too(img_size: int, side: int) -> None:
    """Every cell depends on the whole scan; with the kernels' centres alone, on one pixel."""
    torch.manual_seed(0)
    config = MoEConfig(
        img_size=img_size, sides=(side,), channels=MOBILENETV2_CHANNELS, backbone="mobilenetv2"
    )
    expert = MixtureOfExperts(config).eval().experts[0]
    for m in expert.modules():
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3):
            centre = m.weight.detach()[:, :, 1:2, 1:2].clone()
            m.weight.data.zero_()[:, :, 1:2, 1:2] = 10 * centre
    x = torch.rand(1, 1, img_size, img_size).requires_grad_()
    maps = expert.stages(x)[-1]
    cells = torch.arange(maps.shape[-1], dtype=torch.float32)
    placed = resize_to_scan(cells[:, None].expand(1, -1, len(cells)), img_size, side)[0, :, 0]
    for cell in range(len(cells)):
        (grad,) = torch.autograd.grad(maps[:, :, cell, 0].sum(), x, retain_graph=True)
        rows = grad[0, 0].nonzero()[:, 0]
        assert len(rows.unique()) == img_size // side
        assert placed[rows].mean() == pytest.approx(cell, abs=0.05)
