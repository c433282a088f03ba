"""Laws of the autoencoder: patches, masks, and no patch predicted from itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.mae import MAEConfig, MaskedAutoencoder, patch_mean


def tiny(in_chans: int = 1, **changes: float) -> MaskedAutoencoder:
    """Build an autoencoder with an 8 x 8 grid of 4 x 4 patches."""
    torch.manual_seed(0)
    config = MAEConfig(
        img_size=32,
        patch_size=4,
        in_chans=in_chans,
        embed_dim=16,
        depth=1,
        num_heads=2,
        decoder_dim=16,
        decoder_depth=1,
        decoder_heads=2,
        **changes,
    )
    return MaskedAutoencoder(config).eval()


def scans(count: int = 2, in_chans: int = 1) -> Tensor:
    return torch.rand(count, in_chans, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_unpatchify_inverts_patchify(in_chans: int) -> None:
    mae, x = tiny(in_chans), scans(2, in_chans)
    patches = mae.patchify(x)
    assert patches.shape == (2, 64, in_chans * 16)
    assert torch.equal(mae.unpatchify(patches), x)
    assert torch.equal(patches[0, 9].view(in_chans, 4, 4), x[0, :, 4:8, 4:8])  # row by row


@pytest.mark.parametrize("mask_ratio", [0.75, 0.5, 0.6, 0.9])
def test_exactly_the_stated_share_is_kept(mask_ratio: float) -> None:
    mae = tiny(mask_ratio=mask_ratio)
    assert mae.config.num_kept == round(64 * (1 - mask_ratio))
    order, ids_restore = mae.random_masking(5, torch.Generator().manual_seed(0))
    assert torch.equal(order.sort(1).values, torch.arange(64).expand(5, -1))
    assert torch.equal(order.gather(1, ids_restore), torch.arange(64).expand(5, -1))
    assert not torch.equal(order[0], order[1])


def test_the_paper_keeps_49_of_196() -> None:
    assert MAEConfig().num_patches == 196 and MAEConfig().num_kept == 49


def test_complementary_masks_partition_the_patches() -> None:
    keep = tiny().complementary()
    assert keep.shape == (4, 16)
    assert torch.equal(keep.flatten().sort().values, torch.arange(64))


def test_an_odd_grid_has_no_complementary_masks() -> None:
    mae = MaskedAutoencoder(MAEConfig(img_size=12, patch_size=4, embed_dim=12, depth=1))
    with pytest.raises(ValueError, match="even number of patches"):
        mae.complementary()


def test_masked_pixels_do_not_affect_the_prediction() -> None:
    mae, x = tiny(), scans()
    ids_keep = torch.arange(16).expand(2, -1)
    changed = x.clone()
    changed[:, :, 8:] = 1 - changed[:, :, 8:]  # patches 16 to 63, all of them hidden
    assert torch.equal(mae(x, ids_keep), mae(changed, ids_keep))
    changed[:, :, 0] = 0.5  # a visible one
    assert not torch.equal(mae(x, ids_keep), mae(changed, ids_keep))


@pytest.mark.parametrize("patch", [0, 27, 63])
def test_a_patchs_reconstruction_never_looks_at_it(patch: int) -> None:
    mae, x = tiny(), scans()
    patches = mae.patchify(x)
    patches[:, patch] = 1 - patches[:, patch]
    before = mae.patchify(mae.reconstruct(x))
    after = mae.patchify(mae.reconstruct(mae.unpatchify(patches)))
    assert torch.equal(before[:, patch], after[:, patch])
    others = torch.arange(64) != patch
    assert (before[:, others] != after[:, others]).any()


def test_reconstruction_averages_the_masks_that_cover_a_patch() -> None:
    mae, x = tiny(), scans(1)
    keep = mae.complementary()
    guesses = [mae(x, ids[None])[0, 27] for ids in keep if 27 not in ids]
    assert len(guesses) == 3
    expected = torch.stack(guesses).mean(0)
    torch.testing.assert_close(mae.patchify(mae.reconstruct(x))[0, 27], expected)


def test_the_loss_counts_masked_patches_only() -> None:
    mae, x = tiny(), scans()
    ids_keep = torch.stack([torch.arange(16), torch.arange(48, 64)])
    predicted, truth = mae(x, ids_keep), mae.patchify(x)
    expected = torch.stack(
        [
            (predicted[0, 16:] - truth[0, 16:]).square().mean(),
            (predicted[1, :48] - truth[1, :48]).square().mean(),
        ]
    )
    torch.testing.assert_close(mae.masked_error(x, ids_keep), expected)


def test_the_loss_repeats_with_its_generator_and_trains_every_parameter() -> None:
    mae, x = tiny(), scans()
    loss = mae.loss(x, torch.Generator().manual_seed(3))
    assert torch.equal(loss, mae.loss(x, torch.Generator().manual_seed(3)))
    assert not torch.equal(loss, mae.loss(x, torch.Generator().manual_seed(4)))
    loss.backward()
    for name, parameter in mae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_patch_mean_by_hand() -> None:
    values = torch.arange(16.0).view(1, 1, 4, 4)
    assert patch_mean(values, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert patch_mean(torch.cat([values, values + 2], dim=1), 4).tolist() == [[[8.5]]]


def test_a_scan_of_another_size_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 32, 32\), got \(3, 16, 32\)"):
        tiny().patchify(torch.rand(1, 3, 16, 32))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"patch_size": 15}, "must divide img_size"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"img_size": 32, "patch_size": 16, "mask_ratio": 0.9}, "mask_ratio"),  # none visible
        ({"num_heads": 5}, "num_heads"),
        ({"decoder_heads": 5}, "decoder_heads"),
    ],
)
def test_bad_configs_are_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAEConfig(**bad)
