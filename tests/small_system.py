"""Untrained system of the tests, complete and fast: its shape, and a folder of its weights."""

from __future__ import annotations

from pathlib import Path

from core import checkpoint
from core.mae import MAEConfig
from core.moe import MoEConfig
from core.pipeline import MedFedPure, PipelineConfig
from core.unet import UNetConfig
from core.weights import PARTS, SYSTEM, save_part, save_system_file


def small_config(sides: tuple[int, ...] = (28, 14)) -> PipelineConfig:
    """Return a configuration of a few thousand weights; `sides` are those of the experts."""
    moe = MoEConfig(sides=sides, channels=(8, 8, 8, 8), hidden=8, attention_hidden=4)
    mae = MAEConfig(
        embed_dim=16, depth=1, num_heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    unet = UNetConfig(unshuffle=8, channels=(8, 16), time_dim=16)
    return PipelineConfig(moe=moe, plain=moe, mae=mae, unet=unet)


def write_weights(system: MedFedPure, folder: Path) -> None:
    """Write a weights folder as it ships, of one system without hospitals."""
    for name, place in PARTS.items():
        save_part(system.get_submodule(place), folder, name, {}, "split")
    save_system_file(system, folder, "split")
    checkpoint.write_manifest(
        folder, [*PARTS, SYSTEM], preset="tiny", protocol="patients", commit="none"
    )
