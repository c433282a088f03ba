"""State file: tensors and JSON facts, written atomically, equal bytes for equal content."""

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
    """State on disk that is damaged, missing, or of another experiment."""


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write the file atomically.

    Raises:
        OSError: it cannot be written; the previous file is kept.
    """
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_atomic(path, safetensors.save(stored, {"facts": json.dumps(facts, sort_keys=True)}))


def read(path: Path, digest: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and facts of a file that belongs to the experiment `digest`.

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
            f"{path} was written with other settings: use another folder, or remove it"
        )
    return tensors, facts
