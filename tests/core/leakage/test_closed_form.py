"""Closed forms: exact where one scan was learned from, wrong where several were."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.leakage import infer_label, recover_input, recover_patches
from core.mae import MAEConfig, MaskedAutoencoder
from core.moe import Expert, MoEConfig
from demo.phantom import draw_phantom

CONFIG = MAEConfig(embed_dim=64, depth=1, num_heads=2, decoder_dim=32, decoder_depth=1)


@pytest.fixture(scope="module")
def mae() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(CONFIG)


def draw_scans(count: int) -> Tensor:
    return torch.stack([draw_phantom(n, n % 2 == 0) for n in range(count)])


def differentiate(mae: MaskedAutoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    loss = mae.loss(x, torch.Generator().manual_seed(0))
    embed, position = torch.autograd.grad(loss, [mae.embed.weight, mae.position])
    return embed, position


def test_one_scan_s_visible_patches_are_copied(mae: MaskedAutoencoder) -> None:
    x = draw_scans(1)
    places, patches = recover_patches(*differentiate(mae, x))
    order, _ = mae.random_masking(1, torch.Generator().manual_seed(0))
    assert sorted(order[0, : CONFIG.num_kept].tolist()) == places.tolist()
    torch.testing.assert_close(patches, mae.patchify(x)[0, places], atol=1e-3, rtol=0)


def test_of_two_scans_no_patch_is_copied(mae: MaskedAutoencoder) -> None:
    x = draw_scans(2)
    embed, position = differentiate(mae, x)
    seen = (position[0].abs().amax(1) > 0).sum()
    if seen > CONFIG.embed_dim:
        with pytest.raises(ValueError, match="cannot be told apart"):
            recover_patches(embed, position)
        return
    places, patches = recover_patches(embed, position)
    for scan in mae.patchify(x):
        assert (patches - scan[places]).square().mean() > 1e-3


def test_nothing_is_recovered_where_nothing_was_visible(mae: MaskedAutoencoder) -> None:
    with pytest.raises(ValueError, match="0 visible tokens"):
        recover_patches(torch.zeros(64, 256), torch.zeros(1, 196, 64))


@pytest.mark.parametrize("width", [0, 8])
@pytest.mark.parametrize("label", [0, 1])
def test_the_label_of_one_scan_is_inferred(width: int, label: int) -> None:
    torch.manual_seed(1)
    shape = MoEConfig(sides=(28,), channels=(8, 8, 16, 16), hidden=16, map_width=width)
    expert = Expert(shape, 28).eval()
    loss = F.cross_entropy(expert(draw_scans(1)), torch.tensor([label]))
    last = expert.head[-1]
    assert isinstance(last, nn.Linear)
    (bias,) = torch.autograd.grad(loss, [last.bias])
    assert infer_label(bias) == label


def test_the_input_of_a_linear_layer_is_recovered() -> None:
    layer, x = nn.Linear(20, 4), torch.rand(1, 20)
    loss = F.cross_entropy(layer(x), torch.tensor([2]))
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    torch.testing.assert_close(recover_input(weight, bias), x[0])
    with pytest.raises(ValueError, match="gradient of the bias is 0"):
        recover_input(torch.zeros(4, 20), torch.zeros(4))
