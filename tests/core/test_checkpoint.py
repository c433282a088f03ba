"""Weights files round-trip bit for bit, state their origin, and one flipped byte is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn

from core import checkpoint
from core.checkpoint import (
    WeightsError,
    load,
    load_verified,
    read_manifest,
    save,
    write_atomic,
    write_manifest,
)

CONFIG = {"embed_dim": 8, "sides": [56, 112], "name": "tiny"}
NAME = "tiny.safetensors"


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a weights folder with one file and its manifest."""
    weights = tmp_path / "weights"
    save(weights / NAME, tiny_model().state_dict(), CONFIG, split_sha256="abc", half=True)
    write_manifest(weights, [NAME], preset="default", protocol="patients", commit="c0ffee")
    return weights


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replace the hub by two folders, its cache and its server; `calls` records the calls."""

    def hf_hub_download(
        repo_id: str, filename: str, *, revision: str, local_files_only: bool = False
    ) -> str:
        with (tmp_path / "calls").open("a") as calls:
            calls.write(f"{repo_id} {filename} {revision} {local_files_only}\n")
        cached, served = tmp_path / "cache" / filename, tmp_path / "server" / filename
        if not cached.is_file():
            if local_files_only:
                raise LocalEntryNotFoundError("not in the cache")
            if not served.is_file():
                raise ConnectionError("no network")
            shutil.copy(served, cached)
        return str(cached)

    for name in ("cache", "server"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return tmp_path


# --- a file --------------------------------------------------------------------------------------


def test_round_trip_is_bit_for_bit(tmp_path):
    state = tiny_model().state_dict()
    save(tmp_path / NAME, state, CONFIG, split_sha256="abc")
    loaded = load(tmp_path / NAME)
    assert loaded.config == CONFIG
    assert loaded.split_sha256 == "abc"
    assert loaded.state_dict.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded.state_dict[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict[name], tensor)
    tiny_model().load_state_dict(loaded.state_dict)


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    state = {"w": torch.randn(100, 100), "count": torch.tensor(3)}
    save(tmp_path / "full", state, {})
    save(tmp_path / "half", state, {}, half=True)
    loaded = load(tmp_path / "half").state_dict
    assert (tmp_path / "half").stat().st_size < 0.51 * (tmp_path / "full").stat().st_size
    assert loaded["w"].dtype == torch.float32
    assert torch.equal(loaded["w"], state["w"].half().float())
    assert loaded["count"] == 3
    assert loaded["count"].dtype == torch.int64


def test_the_same_weights_are_the_same_bytes(tmp_path):
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.int64)}
    for n in range(8):  # safetensors alone orders its metadata anew each time
        checkpoint.save(tmp_path / f"{n}", tensors, {"k": 1}, split_sha256="s", half=True)
    assert len({(tmp_path / f"{n}").read_bytes() for n in range(8)}) == 1
    found = checkpoint.load(tmp_path / "0")
    assert found.config == {"k": 1} and found.split_sha256 == "s"
    assert all(torch.equal(found.state_dict[n], tensors[n]) for n in tensors)


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="big holds values beyond 65504"):
        save(tmp_path / NAME, {"big": torch.tensor([1e6])}, {}, half=True)
    assert list(tmp_path.iterdir()) == []


def test_shared_and_transposed_tensors_are_kept(tmp_path):
    weight = torch.randn(3, 4)
    save(tmp_path / NAME, {"a": weight, "b": weight, "t": weight.T}, {})
    loaded = load(tmp_path / NAME).state_dict
    assert torch.equal(loaded["a"], weight)
    assert torch.equal(loaded["b"], weight)
    assert torch.equal(loaded["t"], weight.T)


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 400, b"\x80\x04pickle" * 9])
def test_a_damaged_file_is_refused_without_a_manifest_too(tmp_path, damage):
    (tmp_path / NAME).write_bytes(damage)
    with pytest.raises(WeightsError, match="damaged"):
        load(tmp_path / NAME)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=NAME):
        load(tmp_path / NAME)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / NAME)
    with pytest.raises(WeightsError, match="no weights file"):
        load(tmp_path / NAME)


# --- writing in one step -------------------------------------------------------------------------


def test_a_full_disk_leaves_the_previous_file_whole(tmp_path, monkeypatch):
    save(tmp_path / NAME, {"w": torch.ones(3)}, {"step": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / NAME, {"w": torch.zeros(3)}, {"step": 2})
    assert load(tmp_path / NAME).config == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_previous_file_whole(tmp_path):
    save(tmp_path / NAME, {"w": torch.ones(3)}, {"step": 1})
    program = (
        "import os, sys\n"
        "from core import checkpoint\n"
        "checkpoint.os.fsync = lambda _: os._exit(9)\n"
        "checkpoint.write_atomic(sys.argv[1], b'half of it')\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path / NAME)], check=False)
    assert run.returncode == 9
    assert load(tmp_path / NAME).config == {"step": 1}


def test_write_atomic_makes_the_folder_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.txt"]


# --- the manifest --------------------------------------------------------------------------------


def test_the_manifest_says_what_each_file_is(folder):
    info = read_manifest(folder)[NAME]
    assert info.bytes == (folder / NAME).stat().st_size
    assert info.config == CONFIG
    assert (info.split_sha256, info.preset, info.protocol, info.commit) == (
        "abc",
        "default",
        "patients",
        "c0ffee",
    )
    assert load_verified(NAME, folder).config == CONFIG


def test_every_flipped_byte_is_refused(folder):
    whole = (folder / NAME).read_bytes()
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 1
        (folder / NAME).write_bytes(data)
        with pytest.raises(WeightsError, match=f"{NAME} is not the one that was published"):
            load_verified(NAME, folder)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(folder, keep):
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:keep])
    with pytest.raises(WeightsError, match="incomplete"):
        load_verified(NAME, folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(folder):
    save(folder / "other.safetensors", {"w": torch.ones(1)}, {})
    with pytest.raises(WeightsError, match=r"does not list other\.safetensors"):
        load_verified("other.safetensors", folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": {"a": {}}}', '{"files": 3}'])
def test_a_damaged_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match="damaged"):
        load_verified(NAME, folder)


def test_no_manifest_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="There are no weights in"):
        load_verified(NAME, tmp_path)


# --- where files come from -----------------------------------------------------------------------


def test_the_local_file_comes_first(folder, hub):
    load_verified(NAME, folder)
    assert not (hub / "calls").exists()


def test_then_the_cache_then_the_hub_at_the_pinned_revision(folder, hub):
    (folder / NAME).rename(hub / "server" / NAME)
    for _ in range(2):
        assert load_verified(NAME, folder, repo_id="me/it", revision="v9").config == CONFIG
    assert (hub / "calls").read_text().splitlines() == [
        f"me/it {NAME} v9 True",  # not in the cache yet
        f"me/it {NAME} v9 False",
        f"me/it {NAME} v9 True",  # now it is: nothing is asked of the network
    ]


def test_what_the_hub_sends_is_checked_against_the_local_manifest(folder, hub):
    data = bytearray((folder / NAME).read_bytes())
    data[-1] ^= 1
    (folder / NAME).unlink()
    (hub / "server" / NAME).write_bytes(data)
    with pytest.raises(WeightsError, match="not the one that was published"):
        load_verified(NAME, folder)


def test_missing_everywhere_is_one_sentence(folder, hub):
    (folder / NAME).unlink()
    with pytest.raises(WeightsError, match=f"{NAME} is missing and could not be downloaded"):
        load_verified(NAME, folder)


@pytest.mark.slow
def test_the_real_client_respects_offline_mode(folder, tmp_path):
    (folder / NAME).unlink()
    program = (
        "import sys\n"
        "from core.checkpoint import WeightsError, load_verified\n"
        "try:\n"
        f"    load_verified({NAME!r}, sys.argv[1])\n"
        "except WeightsError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "is missing and could not be downloaded" in run.stdout


def test_without_the_hub_client_it_says_so(folder, monkeypatch):
    (folder / NAME).unlink()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match="huggingface-hub is not installed"):
        load_verified(NAME, folder)


def test_the_shipped_weights_keep_their_promise():
    if not (checkpoint.WEIGHTS / checkpoint.MANIFEST).is_file():
        pytest.skip("no weights are shipped in this checkout")
    files = read_manifest()
    assert all(info.bytes <= 10 * 2**20 for info in files.values())
    assert sum(info.bytes for info in files.values()) <= 40 * 2**20
    for name, info in files.items():
        loaded = load_verified(name)
        assert loaded.split_sha256 == info.split_sha256
        assert loaded.config == json.loads(json.dumps(info.config))
