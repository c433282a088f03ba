"""Provenance of results: code, weights, split, machine; refuses weights of another split."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from core.checkpoint import read_manifest
from train.data.split import Manifest

ROOT = Path(__file__).resolve().parent.parent


class ProvenanceError(ValueError):
    """The weights do not belong to the split that is to be measured."""


def weights_facts(folder: str | Path, manifest: Manifest) -> dict[str, Any]:
    """Return hashes of the weights files in `folder`, which must be of `manifest`'s split.

    Raises:
        ProvenanceError: a file names another split; its test scans may have trained it.
        WeightsError: there are no weights.
    """
    files = read_manifest(folder)
    for name, info in files.items():
        if info.split_sha256 != manifest.sha256:
            raise ProvenanceError(
                f"{name} in {folder} was trained on another split (protocol {info.protocol!r}, "
                f"manifest {info.split_sha256[:12] or 'unknown'}) than {manifest.protocol!r} "
                f"({manifest.sha256[:12]}): its training scans may be test scans here"
            )
    return describe_weights(folder)


def describe_weights(folder: str | Path) -> dict[str, Any]:
    """Return hashes of the weights files in `folder`, their preset, protocol and commit.

    Raises:
        WeightsError: there are no weights.
    """
    files = read_manifest(folder)
    return {
        "sha256": {name: info.sha256 for name, info in files.items()},
        "bytes": sum(info.bytes for info in files.values()),
        "preset": sorted({info.preset for info in files.values()}),
        "protocol": sorted({info.protocol for info in files.values()}),
        "commit": sorted({info.commit for info in files.values()}),
    }


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Describe the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def code_facts() -> dict[str, Any]:
    """Return the commit that is checked out and whether code differs; None outside a repository.

    Results do not count as code: they change while they are written.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":(exclude)results")
    return {"commit": commit, "dirty": bool(changes) if commit else None}


def source_key() -> str:
    """Return a short hash of the code that yields figures, committed or not."""
    files = sorted(
        path for folder in ("core", "bench", "train") for path in (ROOT / folder).rglob("*.py")
    )
    return key_of({str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in files})


def now() -> str:
    """Return date and time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def key_of(facts: dict[str, Any]) -> str:
    """Return a short hash of a row's settings: rows of equal key may stand in one file."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _processor() -> str:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
