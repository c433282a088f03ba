"""The system as a folder of weights: one file a part, and a system file for each hospital.

A system file holds the configuration and every tensor that is in no part file. Federated weights
have one system file a hospital, with its personal tensors, above all its attention.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core import checkpoint
from core.checkpoint import WEIGHTS, Checkpoint, WeightsError
from core.pipeline import MedFedPure, PipelineConfig, build
from core.purifier import POLICIES, PurifierConfig
from core.stability import StabilityConfig

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
_PLACES = tuple(f"{place}." for place in PARTS.values())
Systems = dict[int | None, MedFedPure]  # by hospital; None where there are none


def load(
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    hospital: int | None = None,
    score: str | None = None,
    policy: str | None = POLICIES[0],
    d: float | None = None,
) -> MedFedPure:
    """Load the system whose weights are in `folder` (default: the published ones), ready to read.

    Args:
        folder: where the weights are.
        device: by default the first CUDA device where there is one, else the CPU.
        hospital: number of the hospital in federated weights; by default the one that their
            manifest names, else the first.
            `info` then holds its number as 'hospital' and all numbers as 'hospitals'.
        score: the detector's score that decides, of `core.detector.SCORES`; by default the
            weights' own.
        policy: of purification, of `core.purifier.POLICIES`; None: the weights' own.
        d: within which an answer that flips counts as not stable; by default the weights' own.

    Raises:
        WeightsError: weights are missing, incomplete or altered, or there is no such hospital; the
            message is for users.
        ValueError: there is no such score or policy, or d is out of range.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    found = (re.fullmatch(r"hospital-(\d\d)\..*", n) for n in checkpoint.read_manifest(folder))
    numbers = sorted(int(match[1]) for match in found if match)
    default = checkpoint.read_default(folder)
    number = choose_hospital(hospital, sorted(numbers, key=lambda n: n != default))
    try:
        stored = load_system_file(folder, number)
        _check_version(stored, number)
        system = build(_restore(stored.config["system"]), stored.config["info"])
        system.load_state_dict(_load_parts(folder, number, stored) | stored.state_dict)
    except WeightsError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{system_file_name(number)} and its parts in {folder} do not fit this version: {error}"
        ) from None
    system.info |= {"split_sha256": stored.split_sha256}
    system.info |= {"hospitals": numbers} if numbers else {}
    system.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return system.with_options(score, policy, d)


def load_all(folder: str | Path | None = None, device: str | torch.device | None = None) -> Systems:
    """Load the system of every hospital; under None where the weights know no hospitals.

    The one that reads by default comes first. All have the default policy of purification.
    Modules that hold nothing of a hospital's own are the same objects in all systems.

    Raises:
        WeightsError: as `load` does, or a hospital's file does not belong to the first one's.
    """
    folder = WEIGHTS if folder is None else Path(folder)
    first = load(folder, device, policy=None)
    number = first.info.get("hospital")
    others = [n for n in first.info.get("hospitals", []) if n != number]
    systems, like = {number: first}, load_system_file(folder, number)
    modules = {f"{place}.": m for place, m in first.named_modules()}
    shared = {
        id(module): module
        for place, module in modules.items()
        if place.startswith(_PLACES) and not any(n.startswith(place) for n in like.state_dict)
    }
    for other in others:
        stored = load_system_file(folder, other)
        _check_version(stored, other)
        if _describe_kind(stored) != _describe_kind(like):
            raise WeightsError(
                f"The weights file {system_file_name(other)} is of another split or configuration."
            )
        systems[other] = copy.deepcopy(first, dict(shared))
        systems[other].config = _restore(stored.config["system"])
        systems[other].load_state_dict(stored.state_dict, strict=False)
        of_all = {key: first.info[key] for key in ("split_sha256", "hospitals")}
        systems[other].info = {**stored.config["info"], **of_all}
    return {number: system.with_options(policy=POLICIES[0]) for number, system in systems.items()}


def choose_hospital(hospital: int | None, numbers: Sequence[int]) -> int | None:
    """Return the requested hospital's number, by default the first; None if there are none.

    Raises:
        WeightsError: there is no such hospital.
    """
    if hospital is None:
        return numbers[0] if numbers else None
    if hospital not in numbers:
        there = f"hospitals {', '.join(map(str, sorted(numbers)))}" if numbers else "no hospitals"
        raise WeightsError(f"There is no hospital {hospital}: these weights have {there}.")
    return hospital


def system_file_name(hospital: int | None) -> str:
    """Return the name of a hospital's system file."""
    return SYSTEM if hospital is None else f"hospital-{hospital:02d}.safetensors"


def load_system_file(folder: Path, hospital: int | None) -> Checkpoint:
    """Load and verify a hospital's system file.

    Raises:
        WeightsError: it is missing, incomplete, altered or another hospital's.
    """
    stored = checkpoint.load_verified(system_file_name(hospital), folder)
    if stored.config["info"].get("hospital") != hospital:
        raise WeightsError(
            f"The weights file {system_file_name(hospital)} belongs to another hospital."
        )
    return stored


def _check_version(stored: Checkpoint, hospital: int | None) -> None:
    if "detector.thresholds" not in stored.state_dict:
        raise WeightsError(
            f"The weights file {system_file_name(hospital)} is of an earlier version, which stored "
            "the score of every validation scan: calibrate it anew with `python -m train "
            "calibrate`, a hospital's with `python -m train export --state`."
        )


def save_system_file(system: MedFedPure, folder: Path, split_sha256: str) -> None:
    """Write a system file: configuration, calibration, detector, info."""
    config = {"system": config_to_dict(system.config), "info": system.info}
    stored = {n: t for n, t in system.state_dict().items() if not n.startswith(_PLACES)}
    checkpoint.save(folder / SYSTEM, stored, config, split_sha256=split_sha256)


def save_part(
    module: nn.Module, folder: Path, name: str, config: dict[str, Any], split_sha256: str
) -> None:
    """Write one part in half precision."""
    checkpoint.save(
        folder / name, module.state_dict(), config, split_sha256=split_sha256, half=True
    )


def _load_parts(folder: Path, hospital: int | None, stored: Checkpoint) -> dict[str, Tensor]:
    """Load the tensors of the part files, by their place in the system."""
    state: dict[str, Tensor] = {}
    file = system_file_name(hospital)
    for name in PARTS:
        part = checkpoint.load_verified(name, folder)
        if part.split_sha256 != stored.split_sha256:
            raise WeightsError(f"The weights file {name} was trained on another split than {file}.")
        state |= {f"{PARTS[name]}.{n}": t for n, t in part.state_dict.items()}
    for name in state.keys() & stored.state_dict.keys():
        raise WeightsError(f"The weights file {file} holds {name}, which a part file holds too.")
    return state


def _describe_kind(stored: Checkpoint) -> tuple[str, Any, set[str]]:
    config = replace(
        _restore(stored.config["system"]), stability=StabilityConfig(), purifier=PurifierConfig()
    )  # options of reading, in which hospitals may differ
    return stored.split_sha256, config, set(stored.state_dict)


def _restore(values: dict[str, Any]) -> PipelineConfig:
    """Restore the stored configuration, without fetching pretrained weights."""
    config = config_from_dict(values)
    moe, plain = (replace(part, pretrained=False) for part in (config.moe, config.plain))
    return replace(config, moe=moe, plain=plain)


def config_to_dict(config: PipelineConfig) -> dict[str, Any]:
    """Convert a configuration to a plain dictionary, for the weights' metadata."""
    return asdict(config)


def config_from_dict(values: dict[str, Any]) -> PipelineConfig:
    """Invert `config_to_dict`; lists become tuples. Weights of earlier versions lack stability."""
    values = {"stability": {}, **values}
    return PipelineConfig(
        **{
            part.name: type(getattr(PipelineConfig(), part.name))(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in values[part.name].items()}
            )
            for part in fields(PipelineConfig)
        }
    )
