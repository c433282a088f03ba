"""Fixtures of federated training: small federations on forty phantoms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from tests.networks import NETWORKS

TINY = (
    NETWORKS
    + """
[classifier.fit]
batch_size = 8
[federated]
local_epochs = 1
{federated}
[federated.partition]
num_clients = {clients}
min_scans = 2
[federated.strategy]
{strategy}
"""
)


@pytest.fixture(autouse=True)
def surroundings(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    from train.calibration import fusion
    from train.data import split

    before = torch.get_num_threads()
    monkeypatch.setattr(split, "MANIFESTS", world / "manifests")
    monkeypatch.setattr(fusion, "MAX_FEATURE_SHARE", 1.0)  # most of a small calibration's time
    monkeypatch.delenv("MEDFEDPURE_DATA", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def preset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a tiny federation's preset; equal text, equal file."""

    def write(federated: str = "num_rounds = 1", clients: int = 3, strategy: str = "") -> Path:
        path = tmp_path / "tiny.toml"
        text = TINY.format(federated=federated, clients=clients, strategy=strategy)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def federate(world: Path, tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs the command on the phantoms and returns its exit code."""

    def run(preset: Path, out: str = "out", *options: str) -> int:
        from train.__main__ import main

        arguments = ["--preset", str(preset), "--protocol", "paper", "--threads", "1"]
        arguments += ["--data", str(world / "data"), "--cache", str(world / "cache")]
        return main(["federated", *options, *arguments, "--out", str(tmp_path / out)])

    return run


@pytest.fixture(scope="session")
def finished() -> dict[tuple[str, ...], Path]:
    """Return the folders of federations that a test has trained, by preset and options."""
    return {}


@pytest.fixture
def trained(
    federate: Callable[..., int],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    finished: dict[tuple[str, ...], Path],
) -> Callable[..., None]:
    """Train a federation, or copy one that was trained with equal settings."""

    def train(preset: Path, out: str = "out", *options: str) -> None:
        key, folder = (preset.read_text(encoding="utf-8"), *options), tmp_path / out
        if key in finished:
            shutil.copytree(finished[key], folder)
            return
        assert federate(preset, out, *options) == 0
        finished[key] = shutil.copytree(folder, tmp_path_factory.mktemp("finished") / "out")

    return train
