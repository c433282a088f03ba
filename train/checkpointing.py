"""State of a running training on disk: models, optimiser, progress; written atomically."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def write_state(
    path: Path,
    models: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> None:
    """Write the state atomically: a full disk or a kill leaves the previous file intact.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {f"{name}/{k}": v for name, m in models.items() for k, v in m.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        # Muon keeps a flag, not a tensor
        tensors |= {f"optimizer/{i}/{k}": torch.as_tensor(v) for k, v in state.items()}
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            partial,
            {"facts": json.dumps(facts)},
        )
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} cannot be written, the previous file is kept: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def read_state(
    path: Path, models: dict[str, nn.Module], optimizer: torch.optim.Optimizer, identity: str
) -> dict[str, Any]:
    """Restore models and optimiser from a state file; return its facts.

    Raises:
        ValueError: the file is damaged, or was written with other settings than `identity`.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a mapping)
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is damaged: remove it to start again") from None
    shapes = {f"{n}/{k}": v.shape for n, m in models.items() for k, v in m.state_dict().items()}
    found = {k: v.shape for k, v in tensors.items() if not k.startswith("optimizer/")}
    if facts.get("identity") != identity or found != shapes:
        raise ValueError(f"{path} was written with other settings: remove it to start again")
    for name, model in models.items():
        model.load_state_dict(_select(f"{name}/", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _select("optimizer/", tensors).items():
        i, name = key.split("/")
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return facts


def _select(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
