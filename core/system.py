"""The whole system in a folder of weights: one file a part, and one that ties them together."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import WEIGHTS, WeightsError
from core.detector import SCORES, DetectorConfig
from core.mae import MAEConfig
from core.moe import MoEConfig
from core.pipeline import MedFedPure, PipelineConfig, build
from core.purifier import POLICIES, PurifierConfig
from core.residual import ResidualConfig
from core.unet import UNetConfig

# file -> where that part sits in the pipeline
PARTS = {
    "classifier.safetensors": "classifier.model",
    "plain.safetensors": "plain.model",
    "mae.safetensors": "detector.mae",
    "diffusion.safetensors": "purifier.noise_pred",
    "residual.safetensors": "detector.residual_net",
    "novelty.safetensors": "novelty",
}
SYSTEM = "system.safetensors"


def load(
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    score: str | None = None,
    policy: str | None = None,
) -> MedFedPure:
    """The system whose weights lie in `folder` (default: those that ship), ready to read.

    Args:
        folder: where the weights are.
        device: by default the first CUDA device where there is one, else the CPU.
        score: the detector's score that decides, of `core.detector.SCORES`; by default the
            weights' own.
        policy: of purification, of `core.purifier.POLICIES`; by default the weights' own.

    Raises:
        WeightsError: weights are missing, incomplete or altered; the message is one for users.
        ValueError: there is no such score or policy.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    for given, known in ((score, SCORES), (policy, POLICIES)):
        if given is not None and given not in known:
            raise ValueError(f"must be one of {', '.join(known)}, got {given!r}")
    try:
        tied = checkpoint.load_verified(SYSTEM, folder)
        config = _chosen(_without_imagenet(tied.config["system"]), score, policy)
        system = build(config, tied.config["info"])
        for name, place in PARTS.items():
            part = checkpoint.load_verified(name, folder)
            if part.split_sha256 != tied.split_sha256:
                raise WeightsError(
                    f"The weights file {name} was trained on another split than {SYSTEM}."
                )
            system.get_submodule(place).load_state_dict(part.state_dict)
        _load_ties(system, tied.state_dict)
    except WeightsError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"The weights in {folder} do not fit this version of the project: {error}"
        ) from None
    system.info["split_sha256"] = tied.split_sha256
    return system.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def save_ties(system: MedFedPure, folder: Path, split_sha256: str) -> None:
    """Writes the file that ties the parts together: configuration, calibration, detector, info."""
    config = {"system": config_to_dict(system.config), "info": system.info}
    checkpoint.save(folder / SYSTEM, _ties(system), config, split_sha256=split_sha256)


def save_part(
    module: nn.Module, folder: Path, name: str, config: dict[str, Any], split_sha256: str
) -> None:
    """Writes one part in half precision."""
    checkpoint.save(
        folder / name, module.state_dict(), config, split_sha256=split_sha256, half=True
    )


def _chosen(config: PipelineConfig, score: str | None, policy: str | None) -> PipelineConfig:
    detector = replace(config.detector, score=score or config.detector.score)
    purifier = replace(config.purifier, policy=policy or config.purifier.policy)
    return replace(config, detector=detector, purifier=purifier)


def _without_imagenet(values: dict[str, Any]) -> PipelineConfig:
    """The stored configuration; weights that are about to be replaced are not fetched."""
    config = config_from_dict(values)
    moe, plain = (replace(part, pretrained=False) for part in (config.moe, config.plain))
    return replace(config, moe=moe, plain=plain)


def _ties(system: MedFedPure) -> dict[str, Tensor]:
    """Every tensor of the system that no part holds: buffers of calibration and detector."""
    kept = system.state_dict().keys()
    parts = tuple(f"{place}." for place in PARTS.values())
    return {n: b for n, b in system.named_buffers() if n in kept and not n.startswith(parts)}


def _load_ties(system: MedFedPure, state: dict[str, Tensor]) -> None:
    expected = _ties(system)
    if set(expected) != set(state):
        raise KeyError(f"expected {len(expected)} tensors in {SYSTEM}, found {len(state)}")
    for name, buffer in expected.items():
        buffer.copy_(state[name])


def config_to_dict(config: PipelineConfig) -> dict[str, Any]:
    """Plain dictionary of a configuration, for the weights' metadata."""
    return asdict(config)


def config_from_dict(values: dict[str, Any]) -> PipelineConfig:
    """The inverse of `config_to_dict`; lists become tuples."""
    parts: dict[str, Any] = {
        "moe": MoEConfig, "plain": MoEConfig, "mae": MAEConfig,
        "unet": UNetConfig, "residual": ResidualConfig,
        "detector": DetectorConfig, "purifier": PurifierConfig,
    }  # fmt: skip
    return PipelineConfig(
        **{
            name: part(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()}
            )
            for name, part in parts.items()
        }
    )
