"""Loss of tumour maps by hand, and what it does in the classifier's training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.moe import MixtureOfExperts, MoEConfig
from core.tumour_map import TumourMap
from train.data.augment import AugmentConfig
from train.data.dataset import Sample, ScanDataset
from train.data.styles import StyleConfig
from train.data.transplants import TransplantConfig
from train.phases.classifier import (
    ClassifierConfig,
    ClassifierPhase,
    _attack_batch,
    build_loss,
)
from train.phases.map_loss import compute_dice_loss, compute_map_loss

CONFIG = MoEConfig(
    img_size=64, sides=(32, 16), channels=(8, 8, 8, 8), hidden=8, attention_hidden=4, map_width=4
)
STILL = AugmentConfig(*[0] * 13)  # type: ignore[arg-type]
CPU = torch.device("cpu")


def build_map(cells: torch.Tensor) -> TumourMap:
    return TumourMap(cells, torch.zeros(len(cells)), torch.zeros(len(cells)))


def build_sample(n: int = 4) -> Sample:
    """Build dark scans, every second with a bright square; of the last one no mask is known."""
    x, masks = torch.full((n, 1, 64, 64), 0.2), torch.zeros(n, 1, 32, 32)
    x[::2, :, 16:32, 32:48] = 0.9
    masks[::2, :, 8:16, 16:24] = 1
    known = torch.tensor([True] * (n - 1) + [False])
    return Sample(x, torch.tensor([1, 0] * (n // 2)), masks, known)


def test_dice_by_hand() -> None:
    found = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert compute_dice_loss(found, target).item() == pytest.approx(1 - 3 / 4.5)


def test_loss_by_hand() -> None:
    cells = torch.tensor([[[2.0, -1.0], [-1.0, -1.0]]])
    masks = torch.zeros(1, 1, 4, 4)
    masks[:, :, :2, :2] = 1
    p = [1 / (1 + math.exp(-c)) for c in (2, -1, -1, -1)]
    cross_entropy = (-4 * math.log(p[0]) - sum(math.log(1 - q) for q in p[1:])) / 4
    dice = 1 - (2 * p[0] + 1) / (sum(p) + 1 + 1)
    found = compute_map_loss([build_map(cells)], masks, torch.tensor([True]))
    assert found.item() == pytest.approx(4 * cross_entropy + 0.5 * dice, rel=1e-5)


def test_unknown_masks_count_as_nothing_and_healthy_scans_have_no_dice() -> None:
    cells = torch.full((2, 2, 2), 0.3)
    masks = torch.zeros(2, 1, 4, 4)
    both = compute_map_loss([build_map(cells)], masks, torch.tensor([True, False])).item()
    assert both == pytest.approx(4 * math.log(1 + math.exp(0.3)) / 2)
    none = compute_map_loss([build_map(cells)], masks, torch.tensor([False, False])).item()
    assert none == 0


def test_experts_count_equally() -> None:
    masks, known = torch.zeros(1, 1, 4, 4), torch.tensor([True])
    a, b = build_map(torch.full((1, 2, 2), 1.0)), build_map(torch.full((1, 2, 2), -2.0))
    alone = [compute_map_loss([m], masks, known) for m in (a, b)]
    torch.testing.assert_close(compute_map_loss([a, b], masks, known), sum(alone) / 2)


def train_maps(config: ClassifierConfig, steps: int = 120) -> torch.Tensor:
    """Train a mixture on the sample; return the mean probability inside and outside of tumours."""
    torch.manual_seed(0)
    model, sample = MixtureOfExperts(CONFIG), build_sample()
    loss = build_loss(config, STILL)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        loss(model, sample, torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    with torch.no_grad():
        cells = model.eval().outputs(sample.x[:1]).maps[0].cells[0].sigmoid()
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:8, 8:12] = True
    return torch.stack([cells[inside].mean(), cells[~inside].mean()])


def test_masks_teach_where_the_tumour_is() -> None:
    inside, outside = train_maps(ClassifierConfig(adv_eps=0.0, map_loss=1.0)).tolist()
    assert inside > 0.7 and outside < 0.1


def test_the_attack_can_aim_at_the_map() -> None:
    torch.manual_seed(0)
    model, sample = MixtureOfExperts(CONFIG).eval(), build_sample()
    config = ClassifierConfig(adv_eps=0.05, adv_clean=0.0, map_loss=1.0, adv_steps=3)
    losses = []
    for weight in (0.0, 100.0):
        hit = _attack_batch(
            model, sample, replace(config, map_attack=weight), torch.Generator().manual_seed(0)
        )
        maps = model.eval().outputs(hit).maps
        losses.append(compute_map_loss(maps, sample.masks, sample.is_outlined).item())
    assert losses[1] > losses[0]


def test_styles_reach_the_loss() -> None:
    torch.manual_seed(0)
    model, sample = MixtureOfExperts(CONFIG), build_sample()
    config = ClassifierConfig(adv_eps=0.0)
    losses = [
        build_loss(config, STILL, StyleConfig(share=share))(
            model, sample._replace(masks=None, is_outlined=None), torch.Generator().manual_seed(0)
        ).item()
        for share in (0.0, 1.0)
    ]
    assert losses[0] != losses[1]


def test_labels_alone_do_not_see_masks() -> None:
    loss, losses = (
        build_loss(ClassifierConfig(), AugmentConfig(erase=1.0), StyleConfig(share=1.0)),
        [],
    )
    for some in (build_sample(), Sample(*build_sample()[:2])):
        torch.manual_seed(0)
        model = MixtureOfExperts(CONFIG)
        losses.append(loss(model, some, torch.Generator().manual_seed(0)).item())
    assert losses[0] == losses[1]


def test_transplants_without_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="transplants need tumour masks: set map_loss above 0"):
        ClassifierPhase(transplants=TransplantConfig(tumour=0.1))


def test_small_experts_have_maps_too() -> None:
    config = replace(CONFIG, sides=(8,))
    loss = build_loss(ClassifierConfig(adv_eps=0.0, map_loss=1.0), STILL)
    found = loss(MixtureOfExperts(config), build_sample(), torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(found))


def test_labels_are_smoothed() -> None:
    model, sample = MixtureOfExperts(CONFIG).eval(), build_sample()
    loss = build_loss(ClassifierConfig(adv_eps=0.0, beta=0.0, smoothing=0.1), STILL)
    found = loss(model, sample, torch.Generator()).item()
    output = model.outputs(sample.x)
    wanted = torch.full((4, 2), 0.05)
    wanted[torch.arange(4), sample.y] = 0.95
    mixture = -(wanted * output.logits).sum(1).mean()
    own = -(wanted[:, None] * output.expert_logits.log_softmax(2)).sum(2).mean()
    assert found == pytest.approx((mixture + 0.5 * own).item(), rel=2e-2)  # bfloat16 at places


@pytest.mark.parametrize("changes", [{"smoothing": 1.0}, {"map_loss": -1.0}, {"map_attack": -0.1}])
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="smoothing, map_loss or map_attack out of range"):
        ClassifierConfig(**changes)  # type: ignore[arg-type]


def test_a_data_set_hands_out_masks_of_the_rows() -> None:
    masks = np.zeros((3, 112, 112), np.uint8)
    masks[2, 5:9, 7] = 255
    data = ScanDataset(
        np.zeros((3, 224, 224), np.uint8), torch.tensor([0, 1, 1]), ["a/0", "a/1", "a/1"],
        [0, 1, 2], masks=masks, is_outlined=np.array([True, False, True]),
    )  # fmt: skip
    sample = data.sample(torch.tensor([2, 1]), CPU)
    assert sample.masks is not None and sample.is_outlined is not None
    assert sample.masks.shape == (2, 1, 112, 112) and sample.is_outlined.tolist() == [True, False]
    assert sample.masks[0].sum().item() == 4 and sample.masks[1].sum().item() == 0
    bare = replace(data, masks=None, is_outlined=None).sample(torch.tensor([0]), CPU)
    assert bare.masks is None and bare.y.tolist() == [0]
