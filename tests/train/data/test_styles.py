"""Styles: each change by itself, what may not change, and reproducibility."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from train.data.styles import StyleConfig, find_head, restyle

OFF = StyleConfig(
    share=1.0, **{f.name: 0.0 for f in dataclasses.fields(StyleConfig) if f.name != "share"}
)
KINDS = [f.name for f in dataclasses.fields(StyleConfig) if f.name not in ("share", "strip")]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_heads(b: int = 8, side: int = 112) -> Tensor:
    """Draw discs: a bright rim, darker tissue inside with texture, a black background."""
    line = torch.linspace(-1, 1, side)
    radius = (line[:, None].square() + line[None].square()).sqrt()
    tissue = 0.4 + 0.1 * torch.rand(b, 1, side, side, generator=draw(5))
    brightness = torch.linspace(0.5, 1, b).view(-1, 1, 1, 1)
    head = torch.where(radius < 0.76, tissue, 0.9) * brightness
    return torch.where(radius < 0.8, head, 0.0)


def draw_tumours(b: int, row: int, column: int) -> Tensor:
    masks = torch.zeros(b, 1, 112, 112)
    masks[:, :, row : row + 8, column : column + 8] = 1
    return masks


def test_all_off_is_the_identity() -> None:
    x, masks = draw_heads(), draw_tumours(8, 50, 50)
    for config in (OFF, StyleConfig(share=0.0)):
        out, same = restyle(x, masks, config, draw())
        assert torch.equal(out, x) and torch.equal(same, masks)


@pytest.mark.parametrize("kind", KINDS)
def test_each_change_alone_keeps_range_shape_and_masks(kind: str) -> None:
    x, masks = draw_heads(), draw_tumours(8, 50, 50)
    out, same = restyle(x, masks, dataclasses.replace(OFF, **{kind: 1.0}), draw())
    assert out.shape == x.shape and float(out.min()) >= 0 and float(out.max()) <= 1
    assert torch.equal(same, masks)
    moved = (out - x).abs().amax((1, 2, 3))
    assert int((moved > 0.02).sum()) >= 4  # a drawn change may be next to none


def test_a_share_of_the_batch_stays_as_it_is() -> None:
    x, masks = draw_heads(), draw_tumours(8, 50, 50)
    config = dataclasses.replace(OFF, share=0.5, gamma=1.0, bias=1.0)
    out, _ = restyle(x, masks, config, draw())
    assert torch.equal(out[4:], x[4:]) and not torch.equal(out[:4], x[:4])


def test_the_generator_decides_everything() -> None:
    x, masks = draw_heads(), draw_tumours(8, 50, 50)
    first, _ = restyle(x, masks, StyleConfig(share=1.0), draw())
    again, _ = restyle(x, masks, StyleConfig(share=1.0), draw())
    other, _ = restyle(x, masks, StyleConfig(share=1.0), draw(1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_inversion_is_of_the_head_alone() -> None:
    x = draw_heads()
    out, _ = restyle(x, draw_tumours(8, 50, 50), dataclasses.replace(OFF, invert=1.0), draw())
    assert float(out[:, :, :4].max()) == 0  # the background stays black
    brightest = x.amax((2, 3))
    torch.testing.assert_close(out[:, :, 56, 56], brightest - x[:, :, 56, 56])


def test_the_skull_is_taken_off_and_the_brain_stays() -> None:
    x = draw_heads()
    out, masks = restyle(x, draw_tumours(8, 50, 50), dataclasses.replace(OFF, strip=1.0), draw())
    assert torch.equal(out[:, :, 40:72, 40:72], x[:, :, 40:72, 40:72])
    assert float(out[-1].max()) < 0.55 and float(x[-1].max()) > 0.8
    assert torch.equal(masks, draw_tumours(8, 50, 50))


def test_a_skull_with_a_tumour_under_it_is_left_on() -> None:
    x = draw_heads()
    masks = torch.zeros(8, 1, 112, 112)
    masks[:, :, 12:15, 52:60] = 1  # at the rim
    out, same = restyle(x, masks, dataclasses.replace(OFF, strip=1.0), draw())
    assert torch.equal(out, x) and torch.equal(same, masks)


def test_the_head_is_what_lies_between_its_pixels() -> None:
    x = draw_heads(1)
    x[:, :, 50:60, 50:60] = 0  # a dark lesion inside
    head = find_head(x)
    assert bool(head[0, 0, 55, 55]) and not bool(head[0, 0, 2, 2])
    assert float(head.float().mean()) == pytest.approx(3.1416 * 0.8**2 / 4, rel=0.08)
