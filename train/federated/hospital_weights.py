"""Weights of several hospitals: shared parts once, a small file for each hospital.

`core.weights.load` reads such a folder once `checkpoint.write_manifest` has listed `PARTS` and the
hospitals' files.
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

MOST = 99  # hospitals: their files' names have two digits


def save_shared(
    system: MedFedPure,
    folder: Path,
    split_sha256: str,
    is_own: Callable[[str, str], bool] = lambda file, name: is_personal(name),
) -> None:
    """Writes the parts that all hospitals share, in half precision.

    `is_own(file, name)` tells which tensors each hospital keeps for itself: attention, and
    normalisation or its statistics as well where they never travelled.
    """
    for name, place in PARTS.items():
        part = system.get_submodule(place)
        state = {n: tensor for n, tensor in part.state_dict().items() if not is_own(name, n)}
        config = asdict(part.config) if hasattr(part, "config") else {}  # type: ignore[call-overload]
        checkpoint.save(folder / name, state, config, split_sha256=split_sha256, half=True)


def save_hospital(system: MedFedPure, folder: Path, number: int, split_sha256: str) -> None:
    """Writes every tensor of a hospital's system that the shared parts in `folder` do not hold.

    Nothing in it is rounded: the calibration was made with the attention as it is.

    Raises:
        WeightsError: a shared part is missing; `save_shared` comes first.
        ValueError: there is no such number, or what should be shared is not what was written.
    """
    if not 1 <= number <= MOST:
        raise ValueError(f"a hospital's number must be in [1, {MOST}], got {number}")
    own = system.state_dict()
    for name, place in PARTS.items():
        for n, shared in checkpoint.load(folder / name).state_dict.items():
            mine = own.pop(f"{place}.{n}").cpu()
            # counters steer nothing and differ; floats are written in half precision
            if mine.is_floating_point() and not torch.equal(mine.half().float(), shared):
                raise ValueError(f"{n} of hospital {number} is not the one in {name}")
    config = {"system": config_to_dict(system.config), "info": {**system.info, "hospital": number}}
    checkpoint.save(folder / system_file_name(number), own, config, split_sha256=split_sha256)
