"""Shape of the untrained system of the tests: complete and fast."""

from __future__ import annotations

from core.mae import MAEConfig
from core.moe import MoEConfig
from core.pipeline import PipelineConfig
from core.unet import UNetConfig


def small_config(sides: tuple[int, ...] = (28, 14)) -> PipelineConfig:
    """Return a configuration of a few thousand weights; `sides` are those of the experts."""
    moe = MoEConfig(sides=sides, channels=(8, 8, 8, 8), hidden=8, attention_hidden=4)
    mae = MAEConfig(
        embed_dim=16, depth=1, num_heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    unet = UNetConfig(unshuffle=8, channels=(8, 16), time_dim=16)
    return PipelineConfig(moe=moe, plain=moe, mae=mae, unet=unet)
