"""Weights of several hospitals: the shared parts once, and one small file a hospital.

`core.weights.load` reads such a folder after `checkpoint.write_manifest` has listed `PARTS` and
the hospitals' files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from core import checkpoint
from core.moe import is_personal
from core.pipeline import MedFedPure
from core.weights import PARTS, config_to_dict, system_file_name

MAX_HOSPITALS = 99  # their files' names have two digits


def save_shared(
    system: MedFedPure,
    folder: Path,
    split_sha256: str,
    is_own: Callable[[str, str], bool] = lambda file, name: is_personal(name),
) -> None:
    """Write the parts that all hospitals share, in half precision.

    `is_own(file, name)` is True for tensors that each hospital keeps for itself: attention, and
    normalisation or its statistics where they were not shared.
    """
    for name, place in PARTS.items():
        part = system.get_submodule(place)
        state = {n: tensor for n, tensor in part.state_dict().items() if not is_own(name, n)}
        config = asdict(part.config) if hasattr(part, "config") else {}  # type: ignore[call-overload]
        checkpoint.save(folder / name, state, config, split_sha256=split_sha256, half=True)


def save_hospital(system: MedFedPure, folder: Path, number: int, split_sha256: str) -> None:
    """Write the tensors of a hospital's system that the shared parts in `folder` do not hold.

    They are not rounded: the calibration was made with the attention in full precision.

    Raises:
        WeightsError: a shared part is missing; `save_shared` comes first.
        ValueError: the number is out of range, or a shared tensor differs from the one written.
    """
    if not 1 <= number <= MAX_HOSPITALS:
        raise ValueError(f"a hospital's number must be in [1, {MAX_HOSPITALS}], got {number}")
    own = system.state_dict()
    for name, place in PARTS.items():
        for n, shared in checkpoint.load(folder / name).state_dict.items():
            tensor = own.pop(f"{place}.{n}").cpu()
            # counters have no effect and differ; floats are written in half precision
            if tensor.is_floating_point() and not torch.equal(tensor.half().float(), shared):
                raise ValueError(f"{n} of hospital {number} is not the one in {name}")
    config = {"system": config_to_dict(system.config), "info": {**system.info, "hospital": number}}
    checkpoint.save(folder / system_file_name(number), own, config, split_sha256=split_sha256)
