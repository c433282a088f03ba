"""Weights files: safetensors with the config of their module and the sha256 of their split.

`weights/manifest.json` lists every shipped file with its sha256; a file that differs is refused.
Files come from the local folder, else the hub's cache, else the hub at a pinned revision. Nothing
is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
MANIFEST = "manifest.json"
REPO_ID = "medfedpure/medfedpure"
REVISION = "v0.1.0"


class WeightsError(ValueError):
    """Weights that are missing, incomplete or altered; the message is one sentence for users."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a weights file: tensors, the config of their module, the split's sha256."""

    state_dict: dict[str, Tensor]
    config: dict[str, Any]
    split_sha256: str


@dataclass(frozen=True)
class FileInfo:
    """A weights file's line in the manifest."""

    sha256: str
    bytes: int
    config: dict[str, Any]
    split_sha256: str
    preset: str
    protocol: str
    commit: str


def save(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    split_sha256: str = "",
    half: bool = False,
) -> None:
    """Write a weights file atomically: a kill or a full disk leaves the previous file intact.

    Args:
        path: the file, `.safetensors` by custom; its folder is made.
        state_dict: tensors by name, on any device.
        config: JSON-able; enough to rebuild the module.
        split_sha256: the sha256 of the split manifest whose scans trained it.
        half: keep floating tensors as float16, which `load` turns into float32 again.

    Raises:
        ValueError: a tensor does not fit into half precision.
        OSError: the file cannot be written.
    """
    tensors = {name: _prepare_tensor(name, tensor, half) for name, tensor in state_dict.items()}
    metadata = {"config": json.dumps(dict(config)), "split_sha256": split_sha256}
    write_atomic(path, _sort_header(safetensors.save(tensors, metadata)))


def _sort_header(data: bytes) -> bytes:
    """Sort the header of a safetensors file.

    Otherwise metadata comes in any order, and equal weights would have different hashes.
    """
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load(path: str | Path) -> Checkpoint:
    """Read a weights file on the CPU without checking the manifest, as for a training checkpoint.

    Raises:
        WeightsError: the file is missing or is no whole weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    return _parse(path.name, path.read_bytes())


def load_verified(
    name: str,
    folder: str | Path = WEIGHTS,
    *,
    repo_id: str = REPO_ID,
    revision: str = REVISION,
) -> Checkpoint:
    """Read the published weights file `name`; refuse it unless its sha256 is the manifest's.

    The manifest is always the local one, whichever place the file comes from.

    Raises:
        WeightsError: the manifest or the file is missing, incomplete or altered.
    """
    files = read_manifest(folder)
    if name not in files:
        raise WeightsError(f"The weights manifest in {folder} does not list {name}.")
    path = Path(folder) / name
    data = (path if path.is_file() else _download(name, repo_id, revision)).read_bytes()
    info = files[name]
    if len(data) < info.bytes:
        raise WeightsError(
            f"The weights file {name} is incomplete ({len(data)} of {info.bytes} bytes): "
            "download it again."
        )
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise WeightsError(
            f"The weights file {name} is not the one that was published (its sha256 differs): "
            "download it again."
        )
    return _parse(name, data)


def read_manifest(folder: str | Path = WEIGHTS) -> dict[str, FileInfo]:
    """Read the manifest of a weights folder: file name to `FileInfo`.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    return _read_manifest(folder)[0]


def read_default(folder: str | Path = WEIGHTS) -> int | None:
    """Read the number of the hospital that reads where none is named; None: the first.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    return _read_manifest(folder)[1]


def write_default(folder: str | Path, hospital: int) -> None:
    """Write into the manifest which hospital reads where none is named.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    _write_manifest(folder, read_manifest(folder), hospital)


def _read_manifest(folder: str | Path) -> tuple[dict[str, FileInfo], int | None]:
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise WeightsError(f"There are no weights in {folder}: {MANIFEST} is missing.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {name: FileInfo(**info) for name, info in content["files"].items()}
        default = content.get("default_hospital")
        if default is not None and type(default) is not int:
            raise TypeError
        return files, default
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"The weights manifest {path} is damaged: restore it.") from None


def _write_manifest(folder: str | Path, files: dict[str, FileInfo], default: int | None) -> None:
    content: dict[str, Any] = {} if default is None else {"default_hospital": default}
    content["files"] = {name: asdict(files[name]) for name in sorted(files)}
    write_atomic(Path(folder) / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def write_manifest(
    folder: str | Path,
    names: Iterable[str],
    *,
    preset: str,
    protocol: str,
    commit: str,
    keep: bool = False,
) -> None:
    """List the weights files `names` of a folder in its manifest.

    It replaces the previous one, or with `keep` leaves the lines of other files, and the hospital
    that reads by default, as they are.

    Raises:
        WeightsError: a file is missing or is no whole weights file.
    """
    has_some = keep and (Path(folder) / MANIFEST).is_file()
    files, default = _read_manifest(folder) if has_some else ({}, None)
    for name in sorted(names):
        checkpoint = load(Path(folder) / name)
        data = (Path(folder) / name).read_bytes()
        files[name] = FileInfo(
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            config=checkpoint.config,
            split_sha256=checkpoint.split_sha256,
            preset=preset,
            protocol=protocol,
            commit=commit,
        )
    _write_manifest(folder, files, default)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Replace a file by `data` atomically; on any failure the previous file stays as it was.

    Raises:
        OSError: the disk is full or the place cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def halve(name: str, tensor: Tensor) -> Tensor:
    """Return a floating tensor in half precision, any other as it is.

    Raises:
        ValueError: it holds a value that half precision cannot keep.
    """
    if not tensor.is_floating_point():
        return tensor
    halved = tensor.half()
    if not torch.equal(halved.isfinite(), tensor.isfinite()):
        raise ValueError(f"{name} holds values beyond 65504, which half precision cannot keep")
    return halved


def _prepare_tensor(name: str, tensor: Tensor, half: bool) -> Tensor:
    """Copy to contiguous CPU memory: safetensors refuses tensors that share memory."""
    copy = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    return halve(name, copy) if half else copy


def _parse(name: str, data: bytes) -> Checkpoint:
    """Parse a safetensors file: 8 bytes of header length, a JSON header with metadata, tensors."""
    try:
        tensors = safetensors.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        config, split_sha256 = json.loads(metadata["config"]), metadata["split_sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise WeightsError(f"The weights file {name} is damaged or no weights file.") from None
    is_half = (torch.float16, torch.bfloat16)
    state_dict = {n: t.float() if t.dtype in is_half else t for n, t in tensors.items()}
    return Checkpoint(state_dict, config, split_sha256)


def _download(name: str, repo_id: str, revision: str) -> Path:
    """Return the path of the file in the hub's cache, downloading it if needed."""
    missing = f"The weights file {name} is missing"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError(f"{missing}, and huggingface-hub is not installed.") from error
    try:
        return Path(hf_hub_download(repo_id, name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(hf_hub_download(repo_id, name, revision=revision))
    except Exception as error:  # whatever the network or the disk does, users get one sentence
        raise WeightsError(
            f"{missing} and could not be downloaded from {repo_id} at {revision}."
        ) from error
