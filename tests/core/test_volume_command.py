"""Command line of core on many slices: batches, progress, and threads that sleep when idle."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from core.__main__ import FIELDS, main
from core.pipeline import BATCH_SIZE, MedFedPure
from demo.phantom import draw_phantom
from tests.small_system import write_weights

COUNT = 2 * BATCH_SIZE + 1
BLANK = 3  # index of a slice without a picture
# says what OpenMP will read when PyTorch is first imported
WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
"""


class Terminal(io.StringIO):
    """Stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def weights(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    write_weights(tiny_system, folder)
    return str(folder)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("volume") / "head.nii.gz"
    slices = [draw_phantom(seed, tumour=seed % 2 == 1)[0].numpy() for seed in range(COUNT)]
    slices[BLANK] = np.zeros_like(slices[0])
    values = np.stack(slices, axis=2)[::-1, ::-1]
    nibabel.Nifti1Image((values * 255).astype(np.uint8), np.diag([1, 1, 5, 1])).to_filename(path)
    return str(path)


def read_all(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    main([*arguments, "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_volume_is_read_in_batches_with_the_results_of_single_slices(
    weights: str,
    volume: str,
    threads: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # with two, two batches at once
    sizes: list[int] = []
    places: set[int] = set()
    read = MedFedPure.read_batch

    def count(self: MedFedPure, x: object, seeds: list[int]) -> object:
        sizes.append(len(seeds))
        places.add(threading.get_ident())
        return read(self, x, seeds)  # type: ignore[arg-type]

    monkeypatch.setattr(MedFedPure, "read_batch", count)
    together = read_all(capsys, volume, "--slice", "all", "--weights", weights)
    assert sorted(sizes) == [1, BATCH_SIZE - 1, BATCH_SIZE]  # one of the first eight is blank
    assert len(places) == threads
    assert [line["slice"] for line in together] == list(range(1, COUNT + 1))
    assert [line["slice"] for line in together if line["error"]] == [BLANK + 1]
    for line in together[:: BATCH_SIZE // 2]:
        (alone,) = read_all(capsys, volume, "--slice", str(line["slice"]), "--weights", weights)
        for name in set(FIELDS) - {"timings_ms"}:
            assert line[name] == pytest.approx(alone[name], abs=1e-4), name


@pytest.mark.parametrize("options", [("--attack", "fgsm"), ("--attack", "pgd", "--knows-defence")])
def test_attacked_slices_are_read_one_by_one(
    weights: str, volume: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    arguments = (volume, "--weights", weights, "--steps", "1", *options)
    line = read_all(capsys, *arguments, "--slice", "all")[5]
    (alone,) = read_all(capsys, *arguments, "--slice", "6")
    line["timings_ms"] = alone["timings_ms"]
    assert line == alone


def test_progress_is_shown_on_a_terminal_alone(
    weights: str, volume: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [volume, "--slice", "all", "--weights", weights, "--json"]
    main(arguments)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    main(arguments)
    shown = terminal.getvalue()
    assert f"0/{COUNT}" in shown and "slice/s" in shown
    assert len(capsys.readouterr().out.splitlines()) == COUNT


@pytest.mark.parametrize(
    "entry",
    [
        "import core.__main__",
        "import bench.__main__",
        "import train.__main__",
        "import app; app.main(['--no-browser'])",
    ],
)
@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, ["None", "10000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "None"]),
        ({"GOMP_SPINCOUNT": "7"}, ["None", "7"]),
    ],
)
def test_waiting_threads_spin_shortly_unless_the_user_says_otherwise(
    entry: str, own: dict[str, str], found: list[str]
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", WATCH + entry],
        env=environment | own,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == found, run.stderr
