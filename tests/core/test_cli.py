"""Command line of core: one JSON object a line, fixed keys, errors in their place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from core.__main__ import main
from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure
from core.scan import to_png, to_uint8
from core.weights import load
from demo.phantom import draw_phantom
from tests.small_system import small_config, write_weights

NUM_EXPERTS = len(small_config().moe.sides)
KEYS = [
    "file",
    "can_judge",
    "policy",
    "tumour_probability",
    "tumour_probability_undefended",
    "stable",
    "stable_radius",
    "stability_radius",
    "flip_distance",
    "purifying_turns",
    "flagged",
    "score",
    "tau",
    "t_star",
    "attention",
    "expert_probabilities",
    "timings_ms",
    "doubts",
    "error",
]


@pytest.fixture(scope="module")
def weights(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a weights folder as it ships, of an untrained system."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(tiny_system, folder)
    return str(folder)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("scans")
    paths = [folder / "one.png", folder / "two.png"]
    for seed, path in enumerate(paths):
        path.write_bytes(to_png(draw_phantom(seed, tumour=seed == 1)))
    return [str(p) for p in paths]


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "timings_ms"}


def test_one_json_line_per_scan_with_exactly_the_promised_keys(weights, scans, capsys):
    assert main([*scans, "--json", "--weights", weights]) == 0
    found = lines(capsys)
    assert [line["file"] for line in found] == scans
    for line in found:
        assert list(line) == KEYS
        assert line["error"] is None
        assert 0 <= line["tumour_probability"] <= 1
        assert 0 <= line["tumour_probability_undefended"] <= 1
        assert isinstance(line["flagged"], bool)
        assert isinstance(line["t_star"], int)
        assert len(line["attention"]) == len(line["expert_probabilities"]) == NUM_EXPERTS
        assert sum(line["attention"]) == pytest.approx(1, abs=1e-4)
        assert line["timings_ms"].keys() == {"detect", "purify", "classify", "stability", "total"}


def test_it_is_what_the_library_reads(weights, scans, capsys):
    main([scans[0], "--json", "--weights", weights, "--seed", "7"])
    diagnosis = load(weights).read(draw_phantom(0, tumour=False), seed=7).to_dict()
    (line,) = lines(capsys)
    for key in KEYS[1:-3]:
        assert line[key] == pytest.approx(diagnosis[key], abs=1e-4)


def test_a_bad_file_gets_its_error_and_the_others_are_read(weights, scans, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    assert main([scans[0], str(bad), "none.png", scans[1], "--json", "--weights", weights]) == 1
    good, text, missing, last = lines(capsys)
    assert good["error"] is last["error"] is None
    assert "not a picture" in text["error"]
    assert "no such file" in missing["error"]
    for line in (text, missing):
        assert list(line) == KEYS
        assert all(line[key] is None for key in KEYS[1:-1])


def test_colour_pictures_are_read_on_request(weights, tmp_path, capsys):
    path = tmp_path / "photo.png"
    photo = Image.new("RGB", (200, 200), (200, 40, 40))
    photo.paste((10, 60, 200), (0, 0, 100, 200))
    photo.save(path)
    arguments = [str(path), "--json", "--weights", weights]
    assert main(arguments) == 1
    assert main([*arguments, "--any-picture"]) == 0
    refused, read = lines(capsys)
    assert "does not look like a brain MRI" in refused["error"]
    assert read["error"] is None


@pytest.mark.parametrize(
    "options",
    [
        ["--attack", "fgsm"],
        ["--attack", "pgd", "--steps", "2"],
        ["--attack", "pgd", "--steps", "2", "--norm", "l2", "--eps", "1", "--alpha", ".5"],
        ["--attack", "pgd", "--steps", "2", "--knows-defence"],
    ],
)
def test_an_attack_changes_the_reading_and_is_repeatable(weights, scans, capsys, options):
    for extra in ([], options, options):
        assert main([scans[1], "--json", "--weights", weights, *extra]) == 0
    clean, attacked, again = map(numbers, lines(capsys))
    assert attacked["tumour_probability"] != clean["tumour_probability"]
    assert attacked == again


def test_the_attack_leaves_the_clean_output(weights, scans, capsys):
    for extra in ([], ["--attack", "pgd", "--steps", "3", "--eps", ".05", "--alpha", ".02"]):
        main([*scans, "--json", "--weights", weights, *extra])
    found = lines(capsys)
    for clean, attacked in zip(found[:2], found[2:], strict=True):
        moved = attacked["tumour_probability"] - clean["tumour_probability"]
        assert moved < 0 if clean["tumour_probability"] >= 0.5 else moved > 0


@pytest.mark.parametrize("seed", ["-1", "2147483648", "18446744073709551616"])
def test_a_seed_that_no_generator_takes_is_refused(weights, scans, seed):
    with pytest.raises(SystemExit) as stopped:
        main([scans[0], "--weights", weights, f"--seed={seed}"])
    assert stopped.value.code == 2


def test_score_and_policy_can_be_chosen(weights, scans, capsys):
    for extra in ([], ["--score", "paper"], ["--score", "fused"], ["--policy", "paper"]):
        assert main([scans[1], "--json", "--weights", weights, *extra]) == 0
    own, paper, fused, gate = map(numbers, lines(capsys))
    assert own in (paper, fused) and paper["score"] != fused["score"]
    assert gate["t_star"] == 0 or gate["flagged"]
    with pytest.raises(ValueError, match="must be one of picture, paper, floor, got 'none'"):
        load(weights, policy="none")


def test_a_manifest_of_the_wrong_types_is_refused(weights, scans, tmp_path, capsys):
    shutil.copytree(weights, tmp_path / "weights")
    path = tmp_path / "weights" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["system.safetensors"]["bytes"] = "x"
    path.write_text(json.dumps(manifest))
    assert main([scans[0], "--weights", str(path.parent)]) == 2
    assert "do not fit" in capsys.readouterr().err


def test_a_zero_budget_changes_nothing(weights, scans, capsys):
    for extra in ([], ["--attack", "pgd", "--eps", "0", "--steps", "1"]):
        main([scans[0], "--json", "--weights", weights, *extra])
    clean, attacked = map(numbers, lines(capsys))
    assert attacked == clean


def test_what_cannot_be_judged_is_said(weights, scans, capsys, monkeypatch):
    monkeypatch.setattr(Diagnosis, "can_judge", property(lambda d: d.novelty > 1))
    assert main([scans[0], "--weights", weights]) == 0
    assert capsys.readouterr().out.startswith(f"{scans[0]}: cannot judge (out of distribution)")
    assert main([scans[0], "--json", "--weights", weights]) == 0
    assert lines(capsys)[0]["can_judge"] is False


def test_without_json_a_line_to_read(weights, scans, capsys):
    assert main([scans[0], "none.png", "--weights", weights]) == 1
    good, bad = capsys.readouterr().out.splitlines()
    assert good.startswith(f"{scans[0]}: tumour ")
    assert "flagged" in good
    assert bad == "none.png: There is no such file."


def test_what_makes_a_picture_doubtful_stands_beside_its_output(weights, tmp_path, capsys):
    path = tmp_path / "dark.png"
    path.write_bytes(to_png(draw_phantom(0, tumour=False) / 5))
    assert main([str(path), "--weights", weights]) == 0
    assert main([str(path), "--weights", weights, "--json"]) == 0
    text, line = capsys.readouterr().out.splitlines()
    (doubt,) = json.loads(line)["doubts"]
    assert re.fullmatch(r"The picture is dark: it reaches 1\d% of full brightness.", doubt)
    assert text.endswith(f" ms; doubtful: {doubt}")


def test_a_name_that_the_terminal_cannot_show_is_escaped(weights, scans, tmp_path):
    names = ["caf\xe9.png".encode("latin-1"), "brain \N{BRAIN}.png".encode()]
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in names]
    for path in paths:
        shutil.copy(scans[0], path)
    run = subprocess.run(
        [sys.executable, "-m", "core", *paths, scans[0], "--weights", weights],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    first, second, third = run.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/caf\\udce9.png: tumour ")
    assert second.startswith(f"{tmp_path}/brain \\U0001f9e0.png: tumour ")
    assert third.startswith(f"{scans[0]}: tumour ")
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "SCAN"),
        (["a.png", "--attack", "magic"], "invalid choice: 'magic'"),
        (["a.png", "--attack", "pgd", "--steps", "0"], "steps"),
        (["a.png", "--attack", "fgsm", "--eps", "-1"], "eps"),
        (["a.png", "--d", "0"], "d must be above 0 and at most 0.1, got 0.0"),
        (["a.png", "--d", "-0.01"], "d must be above 0"),
        (["a.png", "--d", "0.11"], "d must be above 0"),
    ],
)
def test_invalid_options_are_refused(options, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_no_weights_is_one_sentence(scans, tmp_path, capsys):
    assert main([scans[0], "--json", "--weights", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("There are no weights in")


def test_it_runs_as_a_module(weights, scans):
    run = subprocess.run(
        [sys.executable, "-m", "core", scans[0], "--json", "--weights", weights],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert list(json.loads(run.stdout)) == KEYS
    assert run.stderr == ""


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a volume of three axial slices 5 mm apart, the first one blank."""
    slices = [to_uint8(draw_phantom(seed, tumour=True))[0].astype("int16") for seed in range(3)]
    slices[0][:] = 0
    values = np.stack(slices)[:, ::-1, ::-1].transpose(2, 1, 0)
    path = tmp_path_factory.mktemp("volume") / "scan.nii.gz"
    nibabel.Nifti1Image(values, np.diag([1, 1, 5, 1])).to_filename(path)
    return str(path)


def test_of_a_volume_the_middle_slice_is_read_unless_another_is_named(weights, volume, capsys):
    for options in ([], ["--slice", "3"]):
        assert main([volume, *options, "--json", "--weights", weights]) == 0
    middle, last = lines(capsys)
    assert list(middle) == [*KEYS, "notes", "slice"]
    assert (middle["slice"], last["slice"]) == (2, 3)
    assert middle["tumour_probability"] != last["tumour_probability"]


def test_all_slices_of_a_volume_get_a_line_each(weights, volume, capsys):
    assert main([volume, "--slice", "all", "--json", "--weights", weights]) == 0
    blank, *others = lines(capsys)
    assert "blank" in blank["error"]
    assert [line["slice"] for line in (blank, *others)] == [1, 2, 3]
    assert all(line["error"] is None for line in others)


@pytest.mark.parametrize("number", ["0", "4"])
def test_a_slice_that_there_is_not(weights, volume, capsys, number):
    assert main([volume, "--slice", number, "--weights", weights]) == 1
    assert f"no slice {number}: the volume has 3." in capsys.readouterr().out


def test_all_of_a_missing_file_is_still_a_failure(weights, volume, capsys):
    assert main(["none.nii", "--slice", "all", "--weights", weights]) == 1
    assert main([volume, "--slice", "1", "--weights", weights]) == 1
    assert "slice 1: The picture is blank" in capsys.readouterr().out
