"""`bench certify`: figures of planted certificates, and the command from end to end."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.components.certificate import compute_balanced, compute_figures, measure
from bench.components.certificate import table as certify
from bench.result_file import ResultFile
from core import checkpoint
from core.metrics import wilson_interval
from core.pipeline import MedFedPure
from core.smoothing import FILE, Certificate, Smoothed, SmoothedConfig, lower_bound
from core.weights import PARTS, SYSTEM, save_part, save_system_file
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.data.split import read_manifest

TINY = SmoothedConfig(sigma=0.25, unet_channels=(8, 8), time_dim=8, channels=(8, 8, 8, 8), hidden=8)


@pytest.fixture(scope="module")
def reader() -> Smoothed:
    torch.manual_seed(0)
    return Smoothed(TINY).eval()


def test_abstaining_and_small_radii_count_as_wrong(test_fold: ScanDataset) -> None:
    y = test_fold.labels.tolist()
    said = "".join(map(str, y))
    agreed = [1000] * len(y)
    agreed[0] = 900  # right, of a radius that is too small
    said = said[:1] + "-" + said[2:]
    agreed[1] = 400
    wrong = y.index(1, 2)
    said = said[:wrong] + "0" + said[wrong + 1 :]
    row = compute_figures({"said": said, "agreed": agreed}, test_fold, 0.015, 1000, 0.001, 28, 0.25)
    certified = row["certified"]
    assert certified["all"]["k"] == len(y) - 3
    shares = [certified[name]["accuracy"] for name in ("sensitivity", "specificity")]
    assert certified["balanced"] == pytest.approx(sum(shares) / 2)
    assert row["clean"]["all"]["k"] == len(y) - 2
    assert row["abstained"]["k"] == 1 and row["constant"] == 0.5
    curve = list(row["curve"].values())
    assert curve == sorted(curve, reverse=True) and curve[0] == row["clean"]["balanced"]
    assert row["curve"]["0.015"] == certified["balanced"] and row["curve"]["0.03"] == 0
    p = lower_bound(1000, 1000, 0.001)
    reach = 0.25 * torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(p)) / 28
    assert row["largest_eps"] == pytest.approx(float(reach), rel=1e-5)


def test_the_interval_of_a_balanced_share_joins_those_of_its_classes(
    test_fold: ScanDataset,
) -> None:
    right = torch.ones(len(test_fold), dtype=torch.bool)
    right[(test_fold.labels == 1).nonzero()[0]] = False
    found = compute_balanced(right, test_fold)
    tumours, healthy = int(test_fold.labels.sum()), int((1 - test_fold.labels).sum())
    first, second = wilson_interval(tumours - 1, tumours), wilson_interval(healthy, healthy)
    low = ((found["sensitivity"]["accuracy"] - first[0]) ** 2 + (1 - second[0]) ** 2) ** 0.5 / 2
    assert found["interval"][0] == pytest.approx(found["balanced"] - low)
    assert found["interval"][0] < found["balanced"] < found["interval"][1] <= 1
    with pytest.raises(ValueError, match="both classes"):
        compute_balanced(right[:1], test_fold.pick([0]))


def test_a_killed_run_resumes_and_ends_the_same(
    reader: Smoothed, test_fold: ScanDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.components.certificate.KEEP_EVERY", 2)
    asked: list[int] = []
    real = Smoothed.certify

    def counting(self: Smoothed, scan: torch.Tensor, **options: float) -> Certificate:
        asked.append(int(options["seed"]))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return real(self, scan, **options)

    monkeypatch.setattr(Smoothed, "certify", counting)
    options = {"eps": 0.015, "n0": 10, "n": 20, "alpha": 0.001}

    def store(name: str) -> ResultFile:
        return ResultFile(tmp_path / name, "certify", {}, {"machine": {}})

    with pytest.raises(KeyboardInterrupt):
        measure(store("killed.json"), reader, test_fold, **options)
    assert not json.loads((tmp_path / "killed.json").read_text())["rows"]
    measure(store("killed.json"), reader, test_fold, **options)
    assert asked == [*test_fold.seeds[:5], *test_fold.seeds[4:]]
    measure(store("whole.json"), reader, test_fold, **options)
    rows = [json.loads((tmp_path / n).read_text())["rows"] for n in ("killed.json", "whole.json")]
    same = [{k: r["certificates"][k] for k in ("said", "agreed")} for r in rows]
    assert same[0] == same[1]


def test_the_command_and_its_table(
    pipeline: MedFedPure, reader: Smoothed, data: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, split = tmp_path / "weights", read_manifest("paper", data[1]).sha256
    for name, place in PARTS.items():
        save_part(pipeline.get_submodule(place), folder, name, {}, split)
    save_system_file(pipeline, folder, split)
    about = {"preset": "tiny", "protocol": "paper", "commit": "none"}
    checkpoint.write_manifest(folder, [*PARTS, SYSTEM], **about)
    out = tmp_path / "certify-paper.json"
    words = ["certify", "--protocol", "paper", "--weights", folder, "--data", data[0]]
    words += ["--manifests", data[1], "--out", out, "--threads", "1", "--cache", tmp_path]
    words = [*map(str, words), "--noises", "50", "--choose", "10", "--limit", "6"]
    assert main(words) == 2
    assert "error: These weights have no smoothed classifier" in capsys.readouterr().err
    save_part(reader, folder, FILE, asdict(TINY), split)
    checkpoint.write_manifest(folder, [FILE], **about, keep=True)
    assert main([*words, "--fresh"]) == 0
    result = json.loads(out.read_text())
    assert list(result["rows"]) == ["certificates", "accuracy"]
    assert len(result["rows"]["certificates"]["agreed"]) == 6
    assert list(result["provenance"]["weights"]) == [FILE]
    text = certify({"certify-paper": result})
    assert "| one answer for every scan, balanced | 50.0 | 50.0 |" in text
    assert "28 x 28; 10 noised copies choose the class, 50 others bound" in text
    with pytest.raises(KeyError):
        certify({})
    changed = deepcopy(pipeline.plain.model)
    next(changed.parameters()).data += 1
    save_part(changed, folder, "plain.safetensors", {}, split)
    checkpoint.write_manifest(folder, ["plain.safetensors"], **about, keep=True)
    # another size is another figure of the same certificates, whatever the rest of the system is
    assert main([*words, "--eps", "0.01"]) == 0
    again = json.loads(out.read_text())["rows"]
    assert again["certificates"] == result["rows"]["certificates"]
    assert again["accuracy"]["eps"] == 0.01
    assert main([*words, "--noises", "60"]) == 2
    assert "(settings noises: 50 there, 60 now)" in capsys.readouterr().err


def test_sources_are_told_apart(data: tuple[Path, Path]) -> None:
    fold = load_fold("patients", "test", data[0], cache=None, manifests=data[1])
    said = {"said": "".join(map(str, fold.labels.tolist())), "agreed": [1000] * len(fold)}
    certified = compute_figures(said, fold, 0.015, 1000, 0.001, 28, 0.25)["certified"]
    assert {name: part["balanced"] for name, part in certified["sources"].items()} == {
        "br35h": 1.0,
        "brain-tumor-mri": 1.0,
    }
