"""CIFAR-10 as arrays, decoded once and cached: the official files, or their pictures as JPEG."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from train.data.errors import DataError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SIDE = 32
PARTS = ("train", "test")
OFFICIAL_FOLDER = "cifar-10-batches-py"
JPEG_PLACES = ("cifar10-jpeg.tar.gz", "cifar10-jpeg", ".")  # archive, tree, tree at the root


@dataclass(frozen=True)
class Cifar:
    """Both parts of the data set; `title` is its name in every table."""

    title: str
    train: np.ndarray  # (N, 3, 32, 32) uint8
    train_labels: np.ndarray  # (N,) int64, positions in CLASSES
    test: np.ndarray
    test_labels: np.ndarray


def read_cifar(root: str | Path, cache: str | Path | None = None) -> Cifar:
    """Read CIFAR-10 from a data folder, the official files first.

    The folder holds `cifar-10-batches-py` (as torchvision leaves it), `cifar10-jpeg.tar.gz`, or its
    contents: `train/<class>/NNNN.jpg` and `test/<class>/NNNN.jpg`.

    Raises:
        DataError: there are none of these, or one is damaged or lacks a class.
    """
    root = Path(root)
    if (root / OFFICIAL_FOLDER).is_dir():
        return Cifar("CIFAR-10", **_load_cached(root / OFFICIAL_FOLDER, cache))
    for place in JPEG_PLACES:
        path = root / place
        if path.is_file() or (path / PARTS[0] / CLASSES[0]).is_dir():
            return Cifar("CIFAR-10 (JPEG)", **_load_cached(path, cache))
    raise DataError(f"no CIFAR-10 under {root}: expected {OFFICIAL_FOLDER} or {JPEG_PLACES[0]}")


def _load_cached(path: Path, cache: str | Path | None) -> dict[str, np.ndarray]:
    """Load the arrays at `path` from `cache`, keyed by the sizes and times of the files."""
    if cache is None:
        return _decode_all(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(p.name, s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    kept = Path(cache) / f"cifar10-{key}.npz"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.stem}.{os.getpid()}.tmp.npz")
        try:
            np.savez(partial, allow_pickle=False, **_decode_all(path))
            partial.replace(kept)
        finally:  # a full disk leaves nothing behind
            partial.unlink(missing_ok=True)
    with np.load(kept) as arrays:
        return dict(arrays)


def _decode_all(path: Path) -> dict[str, np.ndarray]:
    return _read_official(path.parent) if path.name == OFFICIAL_FOLDER else _read_jpegs(path)


def _read_official(root: Path) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

    arrays = {}
    for part in PARTS:
        try:
            data = CIFAR10(str(root), train=part == "train", download=False)
        except RuntimeError:  # torchvision compares each file with its published checksum
            raise DataError(f"{root / OFFICIAL_FOLDER} is incomplete or damaged") from None
        arrays[part] = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
        arrays[f"{part}_labels"] = np.array(data.targets, dtype=np.int64)
    return arrays


def _read_jpegs(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    try:
        for name, data in _iterate_files(path):
            found[name] = _decode(data)
    except (OSError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} is incomplete or damaged: {error}") from None
    arrays = {}
    for part in PARTS:
        names = sorted(name for name in found if name.startswith(f"{part}/"))
        labels = [CLASSES.index(name.split("/")[1]) for name in names]
        for lacking in sorted(set(range(len(CLASSES))) - set(labels)):
            raise DataError(f"{path} has no pictures in {part}/{CLASSES[lacking]}")
        arrays[part] = np.stack([found[name] for name in names])
        arrays[f"{part}_labels"] = np.array(labels, dtype=np.int64)
    return arrays


def _iterate_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield `part/class/file.jpg` and the bytes of each picture of an archive or a folder."""
    if path.is_dir():
        for part in PARTS:
            for file in sorted((path / part).glob("*/*.jpg")):
                if file.parent.name in CLASSES:
                    yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts[-3:]
            is_picture = len(parts) == 3 and parts[0] in PARTS and parts[1] in CLASSES
            content = archive.extractfile(member) if is_picture and member.isfile() else None
            if content is not None:
                yield "/".join(parts), content.read()


def _decode(data: bytes) -> np.ndarray:
    """Decode a JPEG to (3, 32, 32) uint8."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        levels = np.asarray(picture.convert("RGB"))
    if levels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"a picture of shape {levels.shape} where {(SIDE, SIDE, 3)} was expected")
    return levels.transpose(2, 0, 1)
