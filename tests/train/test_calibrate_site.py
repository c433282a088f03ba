"""Command calibrate-site: what it writes and says, and one sentence for each bad input."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.pipeline import MedFedPure
from core.scan import to_png
from core.weights import load
from demo.phantom import draw_phantom
from tests.small_system import write_weights
from train import calibrate_site
from train.__main__ import main
from train.calibrate_site import Folder, describe, read_folder
from train.calibration.site import Answers, SiteFigures

COUNT = 52
Run = Callable[..., int]


@pytest.fixture(scope="module")
def weights(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    system = copy.deepcopy(tiny_system)
    for classifier in (system.classifier, system.plain):
        classifier.temperature.fill_(1e-4)  # untrained, its log-odds are all alike
    system.classifier.bias.copy_(torch.tensor([0.0, 1e4]))  # a site that is read as tumours alone
    write_weights(system, folder)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of phantoms in two subfolders, and files that are none."""
    folder = tmp_path_factory.mktemp("scans")
    for n in range(COUNT):
        (folder / f"part-{n % 2}").mkdir(exist_ok=True)
        path = folder / f"part-{n % 2}" / f"{n}.png"
        path.write_bytes(to_png(draw_phantom(n, n % 2 == 0)))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden").write_text("left alone")
    return folder


@pytest.fixture
def run(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(folder: Path, *more: str) -> tuple[int, str, str]:
        places = ["--weights", str(weights), "--out", str(tmp_path / "out")]
        code = main(["calibrate-site", "--scans", str(folder), *places, *more])
        return code, *capsys.readouterr()

    return call


def paint(folder: Path, count: int, kind: str) -> Path:
    folder.mkdir()
    for n in range(count):
        path = folder / f"{n}.png"
        if kind == "photograph":
            hue = Image.linear_gradient("L").rotate(90 * (n % 4)).resize((96, 96))
            full = Image.new("L", hue.size, 255)
            Image.merge("HSV", (hue, full, full)).convert("RGB").save(path)
        elif kind == "scan":
            path.write_bytes(to_png(draw_phantom(n, True)))
        else:
            path.write_bytes(b"no picture")
    return folder


def test_a_site_is_written_and_described(run: Run, scans: Path, tmp_path: Path) -> None:
    code, said, told = run(scans, "--prevalence", "0.4")
    assert code == 0 and "as hospital 1" in told
    lines = said.splitlines()
    assert lines[0] == (
        f"scans: {COUNT} used, 0 left out that cannot be judged, 0 photographs, "
        "1 files not readable"
    )
    assert f"answers 'tumour' before: {COUNT} of {COUNT}" in lines
    line = r"if (\d\d) % have one, give or take 10 points: (\d+) of 52 .*?(, as written)?\n"
    counts = re.findall(line, said)
    assert [(p, bool(written)) for p, _, written in counts] == [
        ("40", True), ("30", False), ("50", False), ("70", False)
    ]  # fmt: skip
    for percent, tumours, _ in counts:  # all are moved down to a tenth above the assumed
        assert int(tumours) == pytest.approx((int(percent) / 100 + 0.1) * COUNT, abs=1)
    assert "doubt: nearly all scans are read as 'tumour'; the folder may hold one class" in lines
    assert lines[-1].startswith("assumed, as it cannot be seen without labels: 40 % of the scans")
    site = load(tmp_path / "out", "cpu").info["site"]
    assert site["scans"] == COUNT and site["answers"][0]["prevalence"] == 0.4
    assert str(scans) not in str(site) and ".png" not in str(site)


def test_a_share_that_no_step_keeps_is_said_to_be_missed() -> None:
    answers = (Answers(0.4, -1.0, 30), Answers(0.3, -1.0, 20), Answers(0.5, 0.0, 20))
    figures = SiteFigures(50, 0, 30, 1, 1, answers, 0.0, "")
    lines = describe(figures, Folder(np.zeros((50, 1, 224, 224), np.uint8), 0, 0)).splitlines()
    assert lines[3:6] == [
        "answers 'tumour' if 40 % have one, give or take 10 points: 30 of 50, missed, as no step "
        "of 0.05 keeps to it (log-odds -1.00), as written",
        "answers 'tumour' if 30 % have one, give or take 10 points: 20 of 50 (log-odds -1.00)",
        "answers 'tumour' if 50 % have one, give or take 10 points: 20 of 50 (log-odds +0.00)",
    ]


BAD = {
    "five": ("Only 5 scans can be judged: an operating point needs at least 50.", 5, "scan"),
    "photographs": ("55 of 55 files are colour photographs", 55, "photograph"),
    "unreadable": (r"None of the 55 files in .* can be read as a scan\.", 55, "text"),
    "empty": ("holds no files: name the site's scans with --scans", 0, "scan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_end_in_one_sentence(run: Run, tmp_path: Path, name: str) -> None:
    words, count, kind = BAD[name]
    code, said, told = run(paint(tmp_path / "folder", count, kind))
    assert code == 2 and said == "" and re.search(words, told)
    assert told.startswith("error: ") and told.count("\n") == 1 and told.endswith(".\n")
    assert not (tmp_path / "out").exists()


def test_one_class_a_missing_folder_and_missing_weights(
    run: Run, scans: Path, tmp_path: Path
) -> None:
    code, _, told = run(scans)  # no prevalence is named
    assert code == 2 and "The scans may hold one class, as nearly all scans are read as" in told
    assert told.endswith("name the share with a tumour with --prevalence.\n")
    code, _, told = run(tmp_path / "nowhere")
    assert code == 2 and "There is no folder" in told
    code, _, told = run(scans, "--weights", str(tmp_path / "nowhere"))
    assert code == 2 and "There are no weights in" in told
    code, _, told = run(scans, "--hospital", "3")
    assert code == 2 and "There is no hospital 3" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "1", "1.5", "nan", "half"])
def test_a_prevalence_out_of_range_is_refused(run: Run, scans: Path, text: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(scans, "--prevalence", text)
    assert stopped.value.code == 2
    words = f"argument --prevalence: must be a number from 0.05 to 0.95, got '{text}'\n"
    assert capsys.readouterr().err.endswith(words)


@pytest.mark.parametrize("name", ["manifest.json", "classifier.safetensors"])
def test_an_occupied_folder_is_refused_before_the_scans_are_read(
    run: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    code, said, told = run(tmp_path / "nowhere")
    assert code == 2 and said == ""
    assert told == f"error: {tmp_path}/out holds weights already: name another folder with --out.\n"
    assert (tmp_path / "out" / name).read_text() == "{}"


def test_a_file_in_place_of_the_folder_is_refused_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a report")
    code, _, told = run(tmp_path / "nowhere")
    assert code == 2 and told == f"error: {tmp_path}/out is no folder: name one with --out.\n"
    assert (tmp_path / "out").read_text() == "a report"


def test_of_many_files_evenly_spaced_ones_are_read(scans: Path, monkeypatch) -> None:
    monkeypatch.setattr(calibrate_site, "MAX_SCANS", 10)
    found = read_folder(scans)
    assert len(found.scans) + found.unreadable == 10 and found.scans.shape[1:] == (1, 224, 224)
