"""All phases end to end on forty phantoms, and errors of bad data folders."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from core import checkpoint, interval, load, read_scan
from core.checkpoint import WeightsError, read_manifest
from core.scan import to_png
from demo.phantom import draw_phantom
from train.__main__ import main
from train.calibration import fusion
from train.data import split
from train.data.sources import BR35H

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def surroundings(world: Path, monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(split, "MANIFESTS", world / "manifests")
    monkeypatch.setattr(fusion, "MAX_FEATURE_SHARE", 1.0)  # most of a small calibration's time
    monkeypatch.delenv("MEDFEDPURE_DATA", raising=False)
    yield
    torch.set_num_threads(before)


def train(phase: str, data: Path | None, out: Path, **options: str) -> int:
    chosen = {"preset": "smoke", "protocol": "paper", "threads": "1", **options}
    chosen = {"cache": str(out / "cache"), **chosen}
    arguments = [phase, "--out", str(out)]
    arguments += ["--data", str(data)] if data else []
    return main(arguments + [f"--{name}={value}" for name, value in chosen.items()])


@pytest.fixture(scope="module")
def trained(world: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "MANIFESTS", world / "manifests")
        patch.setattr(fusion, "MAX_FEATURE_SHARE", 1.0)
        assert train("all", world / "data", world / "out") == 0
    return world / "out"


# --- end to end ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_trained_reads_a_scan(world, trained):
    system = load(trained)
    diagnosis = system.read(read_scan(world / "data" / BR35H / "yes" / "00.png"))
    assert 0 <= diagnosis.tumour_probability <= 1
    assert diagnosis.purified.shape == (1, 224, 224)
    assert float(diagnosis.attention.sum()) == pytest.approx(1, abs=1e-5)
    json.dumps(diagnosis.to_dict())


@pytest.mark.slow
def test_the_weights_name_preset_protocol_and_split(world, trained):
    text = (world / "manifests" / "paper.csv").read_text(encoding="utf-8")
    digest = split.read_manifest("paper", world / "manifests").sha256
    assert text.startswith("file,sha256")
    files = read_manifest(trained)
    assert len(files) == 7
    assert {f.split_sha256 for f in files.values()} == {digest}
    assert {(f.preset, f.protocol) for f in files.values()} == {("smoke", "paper")}
    info = load(trained).info
    assert (info["preset"], info["protocol"], info["seed"]) == ("smoke", "paper", 0)
    assert 0 <= info["validation"]["classifier_balanced"] <= 1


@pytest.mark.slow
def test_the_log_holds_every_epoch_of_every_phase(trained):
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    epochs = {}
    for line in lines:
        if "epoch" in line:
            epochs.setdefault(line["phase"], []).append(line["epoch"])
            assert line["loss"] > 0 and "score" in line
    assert epochs == {
        "diffusion": [1, 2],
        "residual": [1],
        "mae": [1, 2],
        "classifier-warmup": [1],
        "classifier": [1, 2],
        "plain": [1, 2],
    }


@pytest.mark.slow
def test_the_certified_classifier_lies_beside_a_system_that_reads_without_it(
    world, trained, tmp_path
):
    own = shutil.copytree(trained, tmp_path / "own")
    with pytest.raises(WeightsError, match="no certified classifier"):
        interval.load(own)
    assert train("certified", world / "data", own) == 0
    classifier, scan = interval.load(own), read_scan(world / "data" / BR35H / "yes" / "00.png")
    assert classifier.certify(scan).label in (0, 1)
    before, after = read_manifest(trained), read_manifest(own)
    assert {n: i for n, i in after.items() if n != interval.FILE} == before
    assert after[interval.FILE].split_sha256 == before["system.safetensors"].split_sha256
    load(own)
    assert train("calibrate", world / "data", own) == 0
    assert interval.FILE in read_manifest(own)


@pytest.mark.slow
def test_a_finished_phase_is_not_trained_again(world, trained, capsys):
    # tensors, not bytes: safetensors writes its metadata in no fixed order
    before = checkpoint.load(trained / "mae.safetensors").state_dict
    kept = {name: (trained / name).read_bytes() for name in ("mae.safetensors", "manifest.json")}
    assert train("mae", world / "data", trained) == 0
    after = checkpoint.load(trained / "mae.safetensors").state_dict
    for name, data in kept.items():  # the manifest names the bytes that were there
        (trained / name).write_bytes(data)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "resumed at step 6 of 6" in capsys.readouterr().err


@pytest.mark.slow
def test_another_seed_does_not_resume_from_this_one_s_checkpoint(world, trained, capsys):
    assert train("mae", world / "data", trained, seed="1") == 2
    assert "other settings: remove it to start again" in capsys.readouterr().err


def test_a_purifier_trained_on_attacks_asks_for_the_classifiers_first(world, tmp_path, capsys):
    assert train("diffusion", world / "data", tmp_path) == 2
    assert "no weights file" in capsys.readouterr().err


def test_calibrate_names_the_part_that_is_not_trained_yet(world, tmp_path, capsys):
    assert train("calibrate", world / "data", tmp_path) == 2
    assert "no weights file" in capsys.readouterr().err


def test_a_folder_per_class_is_split_by_group_and_trained_on(world, tmp_path):
    assert train("plain", world / "data" / BR35H, tmp_path, protocol="folder") == 0
    assert (tmp_path / "plain.safetensors").is_file()


# --- what ends in exit code 2 and one sentence ---------------------------------------------------


def copy(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world / "data", tmp_path / "data"))


def check_refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_no_data_folder_named(tmp_path, capsys):
    assert "MEDFEDPURE_DATA" in check_refusal(capsys, train("mae", None, tmp_path))


def test_a_missing_data_folder(tmp_path, capsys):
    code = train("mae", tmp_path / "nowhere", tmp_path)
    assert "no data folder at" in check_refusal(capsys, code)


def test_an_empty_data_folder(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    line = check_refusal(capsys, train("mae", tmp_path / "data", tmp_path))
    assert "needs the sources br35h, but" in line and line.endswith("add what is missing")


def test_a_class_without_folder_or_without_pictures(world, tmp_path, capsys):
    root = copy(world, tmp_path)
    for file in (root / BR35H / "no").iterdir():
        file.unlink()
    assert "no pictures in" in check_refusal(capsys, train("mae", root, tmp_path))
    (root / BR35H / "no").rmdir()
    assert "no folder" in check_refusal(capsys, train("mae", root, tmp_path))


def test_a_file_that_is_not_the_manifest_s(world, tmp_path, capsys):
    root = copy(world, tmp_path)
    (root / BR35H / "no" / "00.png").write_bytes(to_png(draw_phantom(99, False)))
    line = check_refusal(capsys, train("mae", root, tmp_path))
    assert "1 of 32 files" in line and "br35h/no/00.png" in line


def test_an_unknown_preset_and_one_that_does_not_fit_the_scans(world, tmp_path, capsys):
    line = check_refusal(capsys, train("mae", world / "data", tmp_path, preset="papr"))
    assert "unknown preset 'papr'" in line
    line = check_refusal(capsys, train("mae", world / "data", tmp_path, preset="cifar10-paper"))
    assert "reads pictures of shape (3, 32, 32)" in line and "(1, 224, 224)" in line


def test_more_classes_than_the_preset_has(world, tmp_path, capsys):
    root = copy(world, tmp_path) / BR35H
    shutil.copytree(root / "no", root / "perhaps")
    for file in (root / "perhaps").iterdir():
        with Image.open(file) as picture:
            picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)
    line = check_refusal(capsys, train("mae", root, tmp_path, protocol="folder"))
    assert "has 2 classes" in line and "has 3" in line


def test_an_output_folder_that_cannot_be_made(world, tmp_path, capsys):
    (tmp_path / "out").write_text("a file where the folder should be")
    code = train("mae", world / "data", tmp_path / "out", cache=str(tmp_path / "cache"))
    assert "out" in check_refusal(capsys, code)


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_stops_at_the_last_checkpoint_with_one_sentence(world, tmp_path):
    preset = tmp_path / "long.toml"
    smoke = (REPOSITORY / "train" / "conf" / "smoke.toml").read_text(encoding="utf-8")
    preset.write_text(smoke.replace("[mae.fit]\nepochs = 2", "[mae.fit]\nepochs = 5000"))
    command = [sys.executable, "-m", "train", "mae", "--protocol", "folder", "--threads", "1"]
    command += ["--preset", str(preset), "--data", str(world / "data" / BR35H)]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "out" / "mae.state"
    deadline = time.monotonic() + 60
    while not state.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130, errors
    assert "resumes from the last checkpoint" in errors and "Traceback" not in errors
    assert state.is_file()
    assert not state.with_suffix(".partial").exists()


@pytest.mark.parametrize("word", ["phases:", "protocols:", "examples:", "SIGTERM", "smoke"])
def test_help_tells_what_there_is(capsys, word):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert word in capsys.readouterr().out
