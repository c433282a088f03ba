"""Masked autoencoder on a ViT (He et al. 2022; section III-B3, Eq. 18-21).

Random masks for training; complementary masks for scoring, so that each patch is predicted only
from others: with four masks of 25 % visible patches, three predictions per patch are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import get_norm_layer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.memoize import once

PIXEL_MEAN, PIXEL_SD = 0.2, 0.2  # approximately, of pixels in brain MRI slices


@dataclass(frozen=True)
class MAEConfig:
    """Shape of the autoencoder. `mask_ratio` is the share of patches hidden from the encoder."""

    img_size: int = 224
    patch_size: int = 16
    in_chans: int = 1
    embed_dim: int = 192
    depth: int = 6
    num_heads: int = 6
    decoder_dim: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    mlp_ratio: float = 4.0
    mask_ratio: float = 0.75

    def __post_init__(self) -> None:
        if self.img_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} must divide img_size {self.img_size}")
        if not 0 < self.mask_ratio < 1 or not 0 < self.num_kept < self.num_patches:
            raise ValueError(
                f"mask_ratio must hide some of {self.num_patches} patches, got {self.mask_ratio}"
            )
        if self.embed_dim % self.num_heads or self.decoder_dim % self.decoder_heads:
            raise ValueError("num_heads must divide embed_dim, decoder_heads decoder_dim")
        if self.embed_dim % 4 or self.decoder_dim % 4:
            raise ValueError("embed_dim and decoder_dim must be multiples of 4")

    @property
    def grid(self) -> int:
        """Number of patches along a side."""
        return self.img_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Number of patches in a scan."""
        return self.grid**2

    @property
    def num_kept(self) -> int:
        """Number of visible patches."""
        return round(self.num_patches * (1 - self.mask_ratio))


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder: encodes visible patches, decodes all, predicts pixels in [0, 1]."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        patch_dim = c.in_chans * c.patch_size**2
        norm = get_norm_layer("layernorm")
        self.embed = nn.Linear(patch_dim, c.embed_dim)
        self.position = nn.Parameter(lattice_embedding(c.grid, c.embed_dim))
        self.encoder = nn.Sequential(
            *(
                Block(c.embed_dim, c.num_heads, c.mlp_ratio, qkv_bias=True, norm_layer=norm)
                for _ in range(c.depth)
            ),
            nn.LayerNorm(c.embed_dim),
        )
        self.decoder_embed = nn.Linear(c.embed_dim, c.decoder_dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, c.decoder_dim) * 0.02)
        self.decoder_position = nn.Parameter(lattice_embedding(c.grid, c.decoder_dim))
        self.decoder = nn.Sequential(
            *(
                Block(c.decoder_dim, c.decoder_heads, c.mlp_ratio, qkv_bias=True, norm_layer=norm)
                for _ in range(c.decoder_depth)
            ),
            nn.LayerNorm(c.decoder_dim),
            nn.Linear(c.decoder_dim, patch_dim),
        )

    def patchify(self, x: Tensor) -> Tensor:
        """Split (B, C, H, W) into patches (B, L, C * p * p), row by row (Eq. 18-19)."""
        b, c, h, w = x.shape
        side = self.config.img_size
        if (c, h, w) != (self.config.in_chans, side, side):
            raise ValueError(
                f"expected scans ({self.config.in_chans}, {side}, {side}), got {(c, h, w)}"
            )
        g, p = self.config.grid, self.config.patch_size
        return x.reshape(b, c, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(b, g * g, c * p * p)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Invert `patchify`."""
        g, p, c = self.config.grid, self.config.patch_size, self.config.in_chans
        x = patches.reshape(len(patches), g, g, c, p, p).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(len(patches), c, g * p, g * p)

    def random_masking(
        self, batch: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Shuffle positions (B, L), the first `num_kept` visible; return them and `ids_restore`.

        Differs from Eq. 20: a fixed number of patches is masked, as in He et al. (2022), where the
        paper draws each patch from a Bernoulli distribution.
        """
        order = torch.rand(batch, self.config.num_patches, generator=generator).argsort(1)
        return order.to(self.mask_token.device), order.argsort(1).to(self.mask_token.device)

    def forward(self, x: Tensor, ids_keep: Tensor) -> Tensor:
        """Predict patches (B, L, C * p * p) from the visible ones; ids_keep (B, kept) int64."""
        tokens = self._tokens(x)
        visible = tokens.gather(1, _expand(ids_keep, tokens))
        latent = self.decoder_embed(self.encoder(visible))
        full = self.mask_token.to(latent.dtype).expand(len(x), self.config.num_patches, -1)
        full = full.scatter(1, _expand(ids_keep, full), latent) + self.decoder_position
        predicted: Tensor = self.decoder(full) * PIXEL_SD + PIXEL_MEAN
        return predicted

    @once
    def encode(self, x: Tensor) -> Tensor:
        """Encode unmasked scans (B, C, H, W) to tokens (B, L, D)."""
        tokens: Tensor = self.encoder(self._tokens(x))
        return tokens

    def _tokens(self, x: Tensor) -> Tensor:
        # normalised only here: pixels are in [0, 1] everywhere else
        tokens: Tensor = self.embed((self.patchify(x) - PIXEL_MEAN) / PIXEL_SD) + self.position
        return tokens

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean squared error on masked patches under a random mask (Eq. 21)."""
        order, _ = self.random_masking(len(x), generator)
        return self.masked_error(x, order[:, : self.config.num_kept]).mean()

    def masked_error(self, x: Tensor, ids_keep: Tensor) -> Tensor:
        """Return the mean squared error over patches not in ids_keep (B, kept), per scan (B,)."""
        error: Tensor = (self(x, ids_keep).float() - self.patchify(x)).square().mean(2)
        hidden = torch.ones_like(error).scatter(1, ids_keep, 0.0)
        return (error * hidden).sum(1) / hidden.sum(1)

    @once
    def reconstruct(self, x: Tensor) -> Tensor:
        """Predict each pixel (B, C, H, W) from patches other than its own.

        Complementary masks: the visible sets partition the patches on a fixed lattice, and each
        patch's prediction is the mean over the masks that hide it.
        """
        keep = self.complementary(x.device)  # (M, kept)
        total = torch.zeros_like(self.patchify(x))
        for ids in keep:
            ids_keep = ids.expand(len(x), -1)
            predicted = self(x, ids_keep).to(total.dtype)
            hidden = torch.ones(self.config.num_patches, 1, dtype=total.dtype, device=x.device)
            hidden[ids] = 0
            total = total + predicted * hidden
        return self.unpatchify(total / (len(keep) - 1))

    def complementary(self, device: torch.device | None = None) -> Tensor:
        """Return visible positions (M, L / M) of M = 4 masks: the lattice's 2 x 2 phases.

        Raises ValueError where the grid has an odd side.
        """
        g = self.config.grid
        if g % 2:
            raise ValueError(f"complementary masks need an even number of patches a side, got {g}")
        ids = torch.arange(g * g, device=device).view(g // 2, 2, g // 2, 2)
        return ids.permute(1, 3, 0, 2).reshape(4, -1)


def patch_mean(error: Tensor, patch_size: int) -> Tensor:
    """Average values (B, C, H, W) over channels and patches: (B, H / p, W / p)."""
    return F.avg_pool2d(error.mean(1, keepdim=True), patch_size)[:, 0]


def lattice_embedding(grid: int, dim: int) -> Tensor:
    """Compute sines and cosines of row and column at geometric frequencies, (1, grid^2, dim).

    They initialise learned position embeddings; dim must be a multiple of 4.
    """
    rates = 10_000.0 ** (-torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(grid)[:, None] * rates
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, dim / 2)
    rows, columns = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(1, grid * grid, -1)


def _expand(ids: Tensor, like: Tensor) -> Tensor:
    return ids[:, :, None].expand(-1, -1, like.shape[2])
