"""Augmentation keeps shape and range, depends on its generator alone, and can be disabled."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from train.data.augment import AugmentConfig, augment, augment_with_masks

OFF = AugmentConfig(
    **{f.name: type(f.default)(0) for f in dataclasses.fields(AugmentConfig)}  # type: ignore[misc]
)


def scans(b: int = 6, c: int = 1, side: int = 32) -> torch.Tensor:
    return torch.rand(b, c, side, side, generator=torch.Generator().manual_seed(1))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("b", "c"), [(1, 1), (5, 1), (4, 3)])
def test_shape_range_and_type_stay(b, c):
    x = scans(b, c)
    out = augment(x, AugmentConfig(), draw())
    assert out.shape == x.shape and out.dtype == x.dtype
    assert bool(out.isfinite().all())
    assert float(out.min()) >= 0 and float(out.max()) <= 1
    assert not torch.equal(out, x)


def test_the_generator_decides_everything():
    x = scans()
    first = augment(x, AugmentConfig(), draw())
    torch.rand(7)
    assert torch.equal(first, augment(x, AugmentConfig(), draw()))
    assert not torch.equal(first, augment(x, AugmentConfig(), draw(1)))


def test_the_scans_given_stay_as_they_are():
    x = scans()
    before = x.clone()
    augment(x, AugmentConfig(), draw())
    assert torch.equal(x, before)


def test_all_off_is_the_identity():
    x = scans()
    assert torch.allclose(augment(x, OFF, draw()), x, atol=1e-5)


@pytest.mark.parametrize(("kind", "axis"), [({"flip": True}, -1), ({"upend": 0.5}, -2)])
def test_flips_alone_mirror_about_half_of_the_scans(kind, axis):
    x = scans(64)
    out = augment(x, dataclasses.replace(OFF, **kind), draw())
    mirrored = [torch.allclose(a, b.flip(axis), atol=1e-4) for a, b in zip(out, x, strict=True)]
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(out, x, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


@pytest.mark.parametrize("kind", [f.name for f in dataclasses.fields(AugmentConfig)])
def test_each_kind_alone_changes_something(kind):
    amount = True if kind == "flip" else 10.0 if kind == "rotation" else 0.5
    x = scans(16)
    out = augment(x, dataclasses.replace(OFF, **{kind: amount}), draw())
    assert (out - x).abs().max() > 0.01
    assert float(out.min()) >= 0 and float(out.max()) <= 1


def test_brightness_leaves_the_black_background_black():
    x = torch.zeros(8, 1, 16, 16)
    out = augment(x, dataclasses.replace(OFF, brightness=0.3, contrast=0.3, shading=0.3), draw())
    assert torch.equal(out, x)


def test_masks_move_as_their_scans_do():
    x = torch.zeros(8, 1, 32, 32)
    x[:, :, 6:14, 10:20] = 1
    moved, masks = augment_with_masks(
        x, x, dataclasses.replace(OFF, rotation=20, scale=0.2, shift=0.1, flip=True), draw()
    )
    assert torch.equal(moved, masks) and not torch.allclose(moved, x, atol=0.1)


def test_masks_do_not_change_with_intensity():
    x = scans()
    moved, masks = augment_with_masks(
        x, (x > 0.5).float(), dataclasses.replace(OFF, contrast=0.4, noise=0.05, gamma=0.5), draw()
    )
    torch.testing.assert_close(masks, (x > 0.5).float(), atol=1e-4, rtol=0)
    assert not torch.allclose(moved, x, atol=0.05)


def test_a_rectangle_that_touches_a_tumour_is_not_erased():
    x = torch.ones(64, 1, 32, 32)
    tumour = torch.zeros_like(x)
    tumour[::2] = 1
    erased, masks = augment_with_masks(x, tumour, dataclasses.replace(OFF, erase=1.0), draw())
    assert torch.allclose(erased[::2], x[::2], atol=1e-4)
    assert all(float(scan.min()) == 0 for scan in erased[1::2])
    torch.testing.assert_close(masks, tumour, atol=1e-4, rtol=0)
