"""Mixtures from training folders: what is counted, and against whom."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.unseen import mixtures
from core import checkpoint, metrics
from core.classifier import Calibrated
from core.moe import MixtureOfExperts, MoEConfig
from tests.networks import NETWORKS, TWO_HOSPITALS
from train.data.corpus import load_corpus
from train.data.dataset import ScanDataset
from train.data.split import Entry
from train.federated.client.local_state import ClientState
from train.federated.experiment import read_experiment
from train.federated.state_file import StateError

CPU = torch.device("cpu")
TINY = MoEConfig(sides=(14,), channels=(4, 4, 4, 4), hidden=4, attention_hidden=4, map_width=4)


class ByBrightness(MixtureOfExperts):
    """Mixture that calls a scan a tumour where it is brighter than one half."""

    def __init__(self) -> None:
        super().__init__(TINY)

    def forward(self, x: Tensor) -> Tensor:
        margin = 40 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], 1).log_softmax(1)


def measure(fold: ScanDataset, attacked: int) -> dict[str, Any]:
    alone = {None: Calibrated(ByBrightness()).eval()}
    return mixtures.measure(alone, [None] * len(fold), fold, attacked, 4, CPU)


def build_fold(levels: list[int], labels: list[int], source: str = "br35h") -> ScanDataset:
    kinds = ["no tumour", "tumour"]
    entries = tuple(
        Entry(f"{source}/{kinds[y]}/{i}.png", "0" * 64, source, i, "test", kinds[y])
        for i, y in enumerate(labels)
    )
    scans = np.repeat(np.array(levels, np.uint8), 224 * 224).reshape(-1, 224, 224)
    seeds = list(range(len(labels)))
    cells = [f"{source}/{y}" for y in labels]
    return ScanDataset(
        scans, torch.tensor(labels), cells, seeds, seeds=tuple(seeds), entries=entries
    )


def test_scans_near_the_border_fall_to_attacks() -> None:
    # one half is level 127.5; eps .015 moves the mean by 3.8 levels
    fold = build_fold([60, 126, 140, 126, 129, 200], [0, 0, 0, 1, 1, 1])
    row = measure(fold, 10)
    assert row["right"] == "110011" and row["worst_bits"] == "100001"
    assert row["clean"]["mean_balanced"]["value"] == pytest.approx(2 / 3)
    assert row["worst"]["value"] == pytest.approx(1 / 3)
    found = row["worst_by_source"]["br35h"]
    assert {kind: (part["k"], part["n"]) for kind, part in found.items()} == {
        "tumour": (1, 3), "no tumour": (1, 3),
    }  # fmt: skip


def test_each_scan_is_read_at_its_own_hospital() -> None:
    class Opposite(ByBrightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(1 - x)

    fold = build_fold([60, 200, 60, 200], [0, 0, 1, 1])
    at = {1: Calibrated(ByBrightness()).eval(), 2: Calibrated(Opposite()).eval()}
    row = mixtures.measure(at, [1, 2, 2, 1], fold, 4, 4, CPU)
    assert row["right"] == row["worst_bits"] == "1111"
    assert mixtures.measure(at, [1, 1, 2, 2], fold, 4, 4, CPU)["right"] == "1010"


def test_attacked_scans_are_limited_by_source() -> None:
    fold = build_fold([60] * 6 + [200] * 6, [0] * 6 + [1] * 6)
    row = measure(fold, 4)
    assert row["attacked"] == 4 and row["worst_bits"] == "1111" and len(row["right"]) == 12


def test_a_source_left_out_gets_an_operating_point_without_labels() -> None:
    """All its scans are brighter than one half, so that all are called tumours at first."""
    seen = build_fold([60, 200] * 4, [0, 1] * 4)
    healthy, ill = [130, 131, 132, 131, 134, 135], [140, 141, 142, 143]
    out = build_fold(healthy + healthy + ill + ill, [0] * 12 + [1] * 8, "tcga-lgg")
    fold = ScanDataset(
        np.concatenate([seen.scans, out.scans]),
        torch.cat([seen.labels, out.labels]),
        [*seen.cells, *out.cells],
        [*seen.groups, *(100 + group for group in out.groups)],
        seeds=range(28),
        entries=(*seen.entries, *(replace(e, first_fold="test") for e in out.entries)),
    )
    assert mixtures.list_left_out(fold) == {"tcga-lgg": [*range(8, 28)]}
    log_odds = mixtures.read_clean(Calibrated(ByBrightness()).eval(), fold, 8, CPU)
    found = mixtures.measure_left_out(log_odds, fold)
    assert list(found) == ["tcga-lgg"]
    row = found["tcga-lgg"]
    assert row["n"] == 10 and row["shift"] < 0
    assert row["before"]["confidence"]["curve"][0] == 0.5
    assert row["after"]["confidence"]["curve"][0] == pytest.approx((4 / 6 + 1) / 2)
    result = {"rows": {"masks": {"left_out": found}}, "warnings": []}
    text = mixtures.render_left_out({"mixtures-without-tcga-lgg": result})
    with pytest.raises(KeyError, match=r"mixtures-without-br35h\.json or .*-tcga-lgg\.json"):
        mixtures.render_left_out({"mixtures-patients": {"rows": {"pooled": {}}, "warnings": []}})
    first = "| without-tcga-lgg | masks | tcga-lgg, 10 |"
    assert f"{first} before | confidence | 50" in text
    assert f"{first} after | confidence | 83.3" in text


def test_answers_that_would_flip_are_refused_on_a_source_left_out() -> None:
    # one half is level 127.5; .0075 moves the mean by 1.9 levels, .015 by 3.8
    fold = build_fold([60, 125, 127, 130, 140, 126, 129, 200] * 3, [0, 0, 0, 0, 1, 1, 1, 1] * 3)
    fold = replace_entries(fold, first_fold="test")
    row = measure(fold, 4)
    found = row["flips"]["br35h"]
    assert found["n"] == 24
    counts = {
        d: {name: (s["k"], s["n"]) for name, s in shares.items()}
        for d, shares in found["by_radius"].items()
    }
    assert counts == {
        "0.0075": {"refused": (9, 24), "silent": (3, 24), "right": (12, 15)},
        "0.015": {"refused": (15, 24), "silent": (0, 24), "right": (9, 9)},
    }
    assert measure(replace_entries(fold, first_fold=""), 4)["flips"] == {}
    result = {"rows": {"masks": row}, "warnings": []}
    text = mixtures.render_unstable({"mixtures-without-br35h": result})
    assert "| without-br35h | masks | br35h, 24 | 0.0075 | 37.5 [" in text
    assert "| 0.015 | 62.5 [" in text and "| 100.0 [100.0 to 100.0] |" in text
    with pytest.raises(KeyError, match=r"mixtures-without-br35h\.json or "):
        mixtures.render_unstable({"mixtures-patients": {"rows": {"pooled": {}}, "warnings": []}})


def replace_entries(fold: ScanDataset, **changes: str) -> ScanDataset:
    return ScanDataset(
        fold.scans, fold.labels, fold.cells, fold.groups, seeds=fold.seeds,
        entries=tuple(replace(e, **changes) for e in fold.entries),
    )  # fmt: skip


def test_bits_survive() -> None:
    right = torch.tensor([True, False, False, True])
    assert mixtures.to_bits(right) == "1001"
    assert torch.equal(mixtures.from_bits("1001"), right)


def test_a_mixture_is_rebuilt_and_calibrated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MixtureOfExperts(TINY).eval()
    file = tmp_path / mixtures.FILE
    checkpoint.save(file, model.state_dict(), asdict(TINY), split_sha256="s", half=True)
    part = checkpoint.load(file)
    validation = build_fold([60, 61, 62, 63] * 6, [0, 1] * 12)
    classifier = mixtures.build_classifier(part.config, part.state_dict, validation, CPU)
    assert classifier.model.config == TINY
    x, _ = validation.batch([0, 1], CPU)
    torch.testing.assert_close(classifier.model(x), model(x), atol=2e-3, rtol=1e-2)
    assert float(classifier.temperature) != 1


def test_a_federation_is_read_from_its_hospitals_folders(world: Path, tmp_path: Path) -> None:
    preset = tmp_path / "two.toml"
    preset.write_text('extends = "smoke"' + NETWORKS + TWO_HOSPITALS)
    experiment = read_experiment(str(preset), "paper", 0)
    corpus = load_corpus("paper", world / "data", world / "cache", world / "manifests")
    run = tmp_path / mixtures.RUN
    run.parent.mkdir()
    facts = {"preset": str(preset), "protocol": "paper", "seed": 0}
    run.write_text(json.dumps(facts))
    with pytest.raises(StateError, match="client 0 has no finished 'mixture'"):
        mixtures.read_federation(tmp_path, corpus, CPU)
    models = []
    for client in (0, 1):
        models.append(experiment.build_model())
        with torch.no_grad():
            next(models[-1].parameters()).add_(client)
        folder = ClientState(tmp_path / "clients", experiment, client)
        folder.write_finished(models[-1].state_dict())
    found, classifiers = mixtures.read_federation(tmp_path, corpus, CPU)
    assert found == experiment and list(classifiers) == [1, 2]
    for classifier, model in zip(classifiers.values(), models, strict=True):
        state, own = model.state_dict(), classifier.model.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    run.write_text(json.dumps({**facts, "protocol": "patients"}))
    with pytest.raises(StateError, match="was trained on 'patients', not 'paper'"):
        mixtures.read_federation(tmp_path, corpus, CPU)


@pytest.mark.parametrize("text", ["labels", "=runs/a", "labels="])
def test_a_run_needs_name_and_folder(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=DIR"):
        mixtures.parse_run(text)
    assert mixtures.parse_run("a=runs/b") == ("a", Path("runs/b"))


def test_the_table_compares_with_the_first_row() -> None:
    fold = build_fold([60, 126, 140, 126, 129, 200], [0, 0, 0, 1, 1, 1])
    base = measure(fold, 10)
    better = {**base, "worst_bits": "110111"}
    provenance = {
        "date": "2026-11-29", "commit": "c" * 40,
        "machine": {"device_name": "cpu", "threads": 1},
    }  # fmt: skip
    rows = {"labels": base, "masks": better}
    result = {"provenance": provenance, "rows": rows, "warnings": []}
    text = mixtures.render_trainings({"mixtures-patients": result})
    left_out = mixtures.render_mixtures({"mixtures-without-br35h": result})
    assert left_out == text.replace("patients", "without-br35h")
    _, _, p = metrics.mcnemar(mixtures.from_bits("110111"), mixtures.from_bits("100001"))
    assert f"; +3 -0 of 6 scans (p = {p:.2g} by scan) |" in text
    drawn = mixtures.draw_difference(
        mixtures.from_bits("110111"), mixtures.from_bits("100001"), base["worst_facts"]
    )
    assert float(drawn[drawn.isfinite()].mean()) == pytest.approx(0.5, abs=0.03)
    assert text.splitlines()[4].startswith("| labels | ") and "worst case against labels" in text
