"""`bench certify`: figures of planted certificates, and the command from end to end."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.__main__ import main
from bench.components.certificate import (
    attack_scans,
    certify_scans,
    compute_balanced,
    compute_figures,
    measure,
)
from bench.components.certificate import table as certify
from bench.result_file import ResultFile
from core import checkpoint
from core.interval import FILE, IntervalConfig, IntervalNet
from core.metrics import wilson_interval
from core.pipeline import MedFedPure
from core.weights import PARTS, SYSTEM, save_part, save_system_file
from tests.core.test_interval import build
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.data.split import read_manifest

TINY = IntervalConfig(side=28, channels=(4, 4), kernels=(3, 3), strides=(2, 1))


@pytest.fixture(scope="module")
def reader() -> IntervalNet:
    return build(TINY)


def plant(fold: ScanDataset) -> dict[str, Any]:
    """Return certificates: all right and proven but for the first three scans."""
    y = fold.labels.tolist()
    said = [1 - y[0], *y[1:]]
    eps = [0.02, 0.01, 0.0, *[0.03] * (len(y) - 3)]
    mixture = [*y[:-1], 1 - y[-1]]
    bits = {n: "".join(map(str, v)) for n, v in (("said", said), ("mixture", mixture))}
    return {**bits, "eps": eps, "side": 28}


def test_wrong_answers_and_small_radii_are_not_certified(test_fold: ScanDataset) -> None:
    n = len(test_fold)
    row = compute_figures(plant(test_fold), test_fold, 0.015)
    certified = row["certified"]
    assert certified["all"]["k"] == n - 3 and row["clean"]["all"]["k"] == n - 1
    shares = [certified[name]["accuracy"] for name in ("sensitivity", "specificity")]
    assert certified["balanced"] == pytest.approx(sum(shares) / 2) and row["constant"] == 0.5
    curve = list(row["curve"].values())
    assert curve == sorted(curve, reverse=True) and curve[0] == row["clean"]["balanced"]
    assert row["curve"]["0.015"] == certified["balanced"] == row["curve"]["0.03"]
    assert row["locked"]["k"] == n - 4  # the last scan's answer is another than the mixture's
    assert row["locked_right"]["accuracy"] == 1.0 and row["mixture"]["k"] == n - 1


def test_one_class_alone_is_not_balanced(test_fold: ScanDataset) -> None:
    few = test_fold.pick((test_fold.labels == 0).nonzero()[:, 0].tolist())
    said = {**plant(test_fold), "said": "0" * len(few), "mixture": "0" * len(few)}
    with pytest.raises(ValueError, match="both classes"):
        compute_figures({**said, "eps": [0.02] * len(few)}, few, 0.015)


def test_a_source_of_one_class_counts_its_own(test_fold: ScanDataset) -> None:
    rows = (test_fold.labels == 0).nonzero()[:, 0].tolist()
    found = compute_balanced(torch.ones(len(rows), dtype=torch.bool), test_fold.pick(rows))
    assert found["balanced"] == 1.0 and "sensitivity" not in found


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


def test_patients_are_drawn_whole_with_both_of_their_classes(test_fold: ScanDataset) -> None:
    """Two patients with a scan of each class: one is read right, the other wrong."""
    rows = [test_fold.labels.tolist().index(label) for label in (0, 1)] * 2
    fold = replace(test_fold.pick(rows), groups=[0, 0, 1, 1])
    found = compute_balanced(torch.tensor([True, True, False, False]), fold)
    assert found["balanced"] == 0.5 and found["interval_by_group"] == (0.0, 1.0)
    assert found["sensitivity"]["interval_by_group"][0] == 0.0
    apart = replace(fold, groups=[0, 1, 2, 3])
    low, high = compute_balanced(torch.tensor([True, True, False, False]), apart)[
        "interval_by_group"
    ]
    assert 0 <= low < 0.5 < high <= 1


def test_every_certified_answer_resists_the_attack(
    reader: IntervalNet, pipeline: MedFedPure, test_fold: ScanDataset, store: ResultFile
) -> None:
    measure(store, reader, pipeline, test_fold, 0.015, batch_size=4)
    rows = store.content["rows"]
    certificates = rows["certificates"]
    assert len(certificates["eps"]) == len(certificates["said"]) == len(test_fold)
    x, _, _ = test_fold.batches(len(test_fold), pipeline.device)[0]
    label, eps = reader.certify_averages(reader.pool(x.double()))
    assert certificates["said"] == "".join(map(str, label.tolist()))
    assert certificates["eps"] == pytest.approx(eps.tolist())
    assert rows["attacked"]["any"]["n"] == len(test_fold)
    assert list(rows["attacked"]["smaller"]) == ["0.00495", "0.01005"]


def test_a_certificate_that_an_attack_breaks_stops_the_command(
    pipeline: MedFedPure, test_fold: ScanDataset, store: ResultFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    reader = build(TINY, calm=3.0)
    few = test_fold.thin(4)
    x, _ = few.batch(range(4), torch.device("cpu"))
    z = reader(x.double())
    reader.head.bias[1] -= (z[:, 1] - z[:, 0]).median()  # the scans lie about the threshold
    sizes = torch.full((4,), 0.9).double()
    answer = IntervalNet.certify_averages
    monkeypatch.setattr(
        IntervalNet, "certify_averages", lambda self, x: (answer(self, x)[0], sizes)
    )
    with pytest.raises(ValueError, match="the certificates are wrong"):
        measure(store, reader, pipeline, few, 0.5, batch_size=4)
    said = certify_scans(reader, pipeline, few, 4) | {"eps": [0.2] * 4}  # proven of less than eps
    with pytest.raises(ValueError, match="the certificates are wrong"):
        attack_scans(reader, few, said, 0.5, 4)


def test_the_command_and_its_table(
    pipeline: MedFedPure, reader: IntervalNet, data: tuple[Path, Path], tmp_path: Path,
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
    words = [*map(str, words), "--limit", "6"]
    assert main(words) == 2
    assert "error: These weights have no certified classifier" in capsys.readouterr().err
    save_part(reader, folder, FILE, asdict(TINY), split)
    checkpoint.write_manifest(folder, [FILE], **about, keep=True)
    assert main([*words, "--fresh"]) == 0
    result = json.loads(out.read_text())
    assert list(result["rows"]) == ["certificates", "attacked", "accuracy"]
    assert len(result["rows"]["certificates"]["eps"]) == 6
    assert FILE in result["provenance"]["weights"]
    text = certify({"certify-paper": result})
    assert "| one answer for every scan, balanced | 50.0 | 50.0 |" in text
    assert "averaged to 28 x 28; bounds in double precision" in text
    with pytest.raises(KeyError):
        certify({})
    # another size is another figure of the same certificates
    assert main([*words, "--eps", "0.01"]) == 0
    again = json.loads(out.read_text())["rows"]
    assert again["certificates"] == result["rows"]["certificates"]
    assert again["accuracy"]["eps"] == 0.01
    save_part(build(TINY, calm=0.2), folder, FILE, asdict(TINY), split)
    checkpoint.write_manifest(folder, [FILE], **about, keep=True)
    assert main(words) == 2
    assert FILE in capsys.readouterr().err


def test_sources_are_told_apart(data: tuple[Path, Path]) -> None:
    fold = load_fold("patients", "test", data[0], cache=None, manifests=data[1])
    bits = "".join(map(str, fold.labels.tolist()))
    said = {"said": bits, "mixture": bits, "eps": [0.02] * len(fold)}
    certified = compute_figures(said, fold, 0.015)["certified"]
    assert {name: part["balanced"] for name, part in certified["sources"].items()} == {
        "br35h": 1.0,
        "brain-tumor-mri": 1.0,
    }
