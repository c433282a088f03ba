"""Transplants: what changes, where, and that labels and masks follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from train.data.dataset import Sample
from train.data.transplants import TransplantConfig, transplant

ALL_SICK = TransplantConfig(tumour=1.0, reverse=0.0, shade=0.0)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build_sample(n: int = 16) -> Sample:
    """Build discs; the first half is brighter and holds a bright square tumour."""
    line = torch.linspace(-1, 1, 112)
    disc = (line[:, None].square() + line[None].square()).sqrt() < 0.8
    x = disc.float().expand(n, 1, -1, -1) * 0.3
    x = x + 0.02 * torch.rand(x.shape, generator=draw(3)) * disc
    x[: n // 2] *= 1.5
    masks = torch.zeros(n, 1, 112, 112)
    x[: n // 2, :, 50:62, 40:52] = 0.8
    masks[: n // 2, :, 50:62, 40:52] = 1
    y = torch.tensor([1] * (n // 2) + [0] * (n // 2))
    return Sample(x, y, masks, torch.ones(n, dtype=torch.bool))


def test_nothing_moves_by_default() -> None:
    sample = build_sample()
    for a, b in zip(transplant(sample, TransplantConfig(), draw()), sample, strict=True):
        assert torch.equal(a, b)


def test_a_moved_tumour_brings_label_and_mask() -> None:
    sample = build_sample()
    out = transplant(sample, ALL_SICK, draw())
    new = torch.nonzero((out.y == 1) & (sample.y == 0))[:, 0]
    assert len(new) >= 5 and torch.equal(out.x[:8], sample.x[:8])
    for row in new.tolist():
        changed = (out.x[row] - sample.x[row]).abs() > 0.02
        inside = out.masks[row] > 0.5
        assert 0.002 < out.masks[row].mean() < 0.1 and bool(out.is_outlined[row])
        assert float(changed[inside].float().mean()) > 0.95
        near = torch.nn.functional.max_pool2d(out.masks[row].float(), 5, 1, 2) > 0
        assert not changed[~near].any()
        assert out.x[row][inside].mean() > sample.x[row][inside].mean() + 0.05


def test_levels_are_those_of_the_new_surroundings() -> None:
    sample = build_sample()
    out = transplant(sample, ALL_SICK, draw())
    moved = (out.y == 1) & (sample.y == 0)
    assert out.x[moved].max() < 0.8  # the donor's level: 0.35 above tissue of 0.46, here of 0.31


def test_a_reversed_tumour_is_darker_than_what_was_there() -> None:
    sample = build_sample()
    out = transplant(sample, replace(ALL_SICK, reverse=1.0), draw())
    moved = (out.y == 1) & (sample.y == 0)
    assert bool(moved.any())
    for row in torch.nonzero(moved)[:, 0].tolist():
        inside = out.masks[row] > 0.5
        assert out.x[row][inside].mean() < sample.x[row][inside].mean() - 0.05


@pytest.mark.parametrize(("reverse", "sign"), [(0.0, 1), (1.0, -1)])
def test_a_moved_shape_keeps_the_tissue_and_changes_its_level(reverse: float, sign: int) -> None:
    sample = build_sample()
    out = transplant(sample, replace(ALL_SICK, shade=1.0, reverse=reverse), draw())
    moved = torch.nonzero((out.y == 1) & (sample.y == 0))[:, 0]
    assert len(moved) >= 5
    for row in moved.tolist():
        core = -torch.nn.functional.max_pool2d(-(out.masks[row] > 0.99).float(), 3, 1, 1) > 0
        change = (out.x[row] - sample.x[row])[core]
        assert sign * change.mean() > 0.02 and change.std() < 0.003  # the texture stays


def test_healthy_tissue_keeps_label_and_mask() -> None:
    sample = build_sample()
    sample.x[8:, :, 20:90:8] *= 0.7  # stripes, so that a moved piece shows
    out = transplant(sample, TransplantConfig(healthy=1.0), draw())
    assert torch.equal(out.y, sample.y) and torch.equal(out.masks, sample.masks)
    changed = (out.x - sample.x).abs().amax((1, 2, 3)) > 0.02
    assert int(changed[8:].sum()) >= 5 and not changed[:8].any()


def test_no_skull_is_moved_into_a_brain() -> None:
    sample = build_sample()
    masks = torch.zeros_like(sample.masks)
    masks[:8, :, 12:24, 50:62] = 1  # at the edge of the heads
    out = transplant(sample._replace(masks=masks), TransplantConfig(healthy=1.0), draw())
    assert torch.equal(out.x, sample.x)


def test_shares_are_of_the_batch_and_of_different_scans() -> None:
    sample = build_sample(40)
    sample.x[20:, :, 20:90:8] *= 0.7
    out = transplant(sample, TransplantConfig(tumour=0.2, healthy=0.2), draw())
    sick = (out.y == 1) & (sample.y == 0)
    changed = (out.x - sample.x).abs().amax((1, 2, 3)) > 0.02
    assert int(sick.sum()) <= 8 and int((changed & ~sick).sum()) <= 8
    assert int(changed.sum()) >= 8


@pytest.mark.parametrize("case", ["no donor", "no host", "mask unknown", "too large"])
def test_without_something_to_move_nothing_changes(case: str) -> None:
    sample = build_sample()
    if case == "no donor":
        sample = sample._replace(y=torch.zeros(16, dtype=torch.long))
    if case == "no host":
        sample = sample._replace(y=torch.ones(16, dtype=torch.long))
    if case == "mask unknown":
        sample = sample._replace(is_outlined=torch.zeros(16, dtype=torch.bool))
    if case == "too large":
        sample = sample._replace(masks=torch.ones(16, 1, 112, 112))
    out = transplant(sample, ALL_SICK, draw())
    assert torch.equal(out.x, sample.x) and torch.equal(out.y, sample.y)


def test_the_generator_decides_everything() -> None:
    first, again, other = (transplant(build_sample(), ALL_SICK, draw(s)).x for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_tumour_stays_in_the_head() -> None:
    sample = build_sample()
    out = transplant(sample, ALL_SICK, draw(4))
    outside = sample.x[8] == 0
    assert float(out.masks[8:][outside.expand(8, -1, -1, -1)].max()) < 0.05


def test_a_covered_tumour_is_gone_with_its_label_and_mask() -> None:
    sample = build_sample(32)
    out = transplant(sample, TransplantConfig(covered=0.5), draw())
    covered = (out.y == 0) & (sample.y == 1)
    assert int(covered.sum()) >= 5 and torch.equal(out.x[16:], sample.x[16:])
    assert (out.masks[covered] == 0).all() and out.is_outlined[covered].all()
    for row in torch.nonzero(covered)[:, 0].tolist():
        inside = sample.masks[row] > 0.5
        assert out.x[row][inside].max() < 0.6  # the tumour's level is 0.8, its surroundings' 0.46
        near = torch.nn.functional.max_pool2d(sample.masks[row], 9, 1, 4) > 0
        assert torch.equal(out.x[row][~near], sample.x[row][~near])


def test_as_many_scans_are_covered_beside_their_tumour() -> None:
    sample = build_sample(32)
    out = transplant(sample, TransplantConfig(covered=0.25), draw())
    changed = (out.x != sample.x).flatten(1).any(1)
    beside = changed & (out.y == 1)
    assert int(beside.sum()) >= 4
    for row in torch.nonzero(beside)[:, 0].tolist():
        inside = sample.masks[row] > 0.5
        kept = out.x[row][inside] == sample.x[row][inside]
        assert kept.float().mean() > 0.9  # its rim may be touched
        assert torch.equal(out.masks[row], sample.masks[row])


def test_a_tumour_without_room_beside_it_stays() -> None:
    sample = build_sample()
    sample.masks[:8, :, 40:72, 20:52] = 1  # 9 % of the picture, a quarter of the head
    sample.x[:8] *= sample.masks[:8]
    out = transplant(sample, TransplantConfig(covered=0.5), draw())
    for a, b in zip(out, sample, strict=True):
        assert torch.equal(a, b)
