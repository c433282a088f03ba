"""Tensors and facts in one file, whole after a kill, with the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch as safetensors
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.checkpoint import write_atomic


class StateError(ValueError):
    """A state on disk that is damaged, missing, or another experiment's."""


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replaces the file in one step.

    Raises:
        OSError: it cannot be written; what was there is kept.
    """
    kept = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_atomic(path, safetensors.save(kept, {"facts": json.dumps(facts, sort_keys=True)}))


def read(path: Path, digest: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file that belongs to the experiment `digest`.

    Raises:
        StateError: the file is damaged or belongs to other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise StateError(f"{path} is damaged: remove it to start again") from None
    if facts.get("digest") != digest:
        raise StateError(
            f"{path} was written with other settings: name another folder, or remove it"
        )
    return tensors, facts
