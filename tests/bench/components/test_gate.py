"""The attention's test: each figure by hand, and what passes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.components.gate import (
    LIMITS,
    Votes,
    compute_balanced,
    is_right,
    judge_attention,
    measure_information,
    read_votes,
    roll_weights,
    table,
)
from core.pipeline import MedFedPure
from train.data.dataset import ScanDataset
from train.data.split import Entry


def build_fold(planes: list[str], labels: list[int]) -> ScanDataset:
    kinds = ["no tumour", "glioma"]
    entries = tuple(
        Entry(f"ixi/{i}.png", "0" * 64, "ixi", i, "test", kinds[y], f"P{i}", "t1", plane)
        for i, (plane, y) in enumerate(zip(planes, labels, strict=True))
    )
    scans = np.random.default_rng(0).integers(0, 255, (len(labels), 224, 224)).astype(np.uint8)
    cells = [f"ixi/{y}" for y in labels]
    seeds = tuple(range(len(labels)))
    return ScanDataset(
        scans, torch.tensor(labels), cells, list(seeds), seeds=seeds, entries=entries
    )


def build_votes(routes: list[int], labels: list[int], *, sharp: float = 0.9) -> Votes:
    """Build two experts; the one on a scan's route is right, the other wrong."""
    n = len(routes)
    weights = torch.full((n, 2), 1 - sharp, dtype=torch.float64)
    weights[torch.arange(n), torch.tensor(routes)] = sharp
    logits = torch.zeros(n, 2, 2, dtype=torch.float64)
    for i, (route, y) in enumerate(zip(routes, labels, strict=True)):
        logits[i, route, y] = 3
        logits[i, 1 - route, 1 - y] = 4
    return Votes(weights, logits.log_softmax(2), torch.tensor(routes))


def test_information_by_hand() -> None:
    route = torch.tensor([0, 0, 0, 1] * 100)
    values = ["a", "a", "b", "b"] * 100
    joint = {("a", 0): 0.5, ("b", 0): 0.25, ("b", 1): 0.25}
    rows, columns = {0: 0.75, 1: 0.25}, {"a": 0.5, "b": 0.5}
    bits = sum(p * math.log2(p / rows[r] / columns[v]) for (v, r), p in joint.items())
    chance = 1 / (2 * 400 * math.log(2))
    assert measure_information(route, values) == pytest.approx(bits - chance)


def test_information_of_what_is_unknown_or_unrelated_is_none() -> None:
    route = torch.tensor([0, 1] * 50)
    assert measure_information(route, [""] * 100) == 0
    assert measure_information(route, ["a", "a", "b", "b"] * 25) == 0
    assert measure_information(route, ["", "a"] * 50) == 0
    assert measure_information(route, ["a", "b"] * 50) == pytest.approx(1, abs=0.01)


def test_balanced_accuracy_and_other_weights() -> None:
    y = torch.tensor([0, 0, 0, 1])
    assert compute_balanced(torch.tensor([True, True, False, True]), y) == pytest.approx(5 / 6)
    assert roll_weights(torch.tensor([[0.7, 0.2, 0.1]])).tolist() == [
        pytest.approx([0.1, 0.7, 0.2])
    ]
    votes = build_votes([0, 1, 1, 0], y.tolist())
    assert is_right(votes, votes.weights, y).all()
    assert not is_right(votes, roll_weights(votes.weights), y).any()


def test_a_gate_that_knows_the_plane_and_matters_passes() -> None:
    planes, labels = ["axial", "coronal"] * 20, [0, 0, 1, 1] * 10
    routes = [int(plane == "coronal") for plane in planes]
    row = judge_attention(build_votes(routes, labels), build_fold(planes, labels))
    assert row["sd"] == pytest.approx(0.4)
    assert row["information"] == pytest.approx(1, abs=0.02)
    assert row["information_of"]["plane"]["source"] == 0
    assert row["lost_elsewhere"] == 1 and row["lost_equal"] == 1  # the wrong one is surer
    assert row["kept"] == 1 and all(row["passes"].values())


def test_a_route_that_is_the_source_does_not_count_as_the_plane() -> None:
    labels = [0, 1] * 20
    fold = build_fold(["axial"] * 20 + ["coronal"] * 20, labels)
    entries = [
        replace(e, source="ixi" if i < 20 else "tcga-lgg") for i, e in enumerate(fold.entries)
    ]
    cells = [f"{e.source}/{y}" for e, y in zip(entries, labels, strict=True)]
    fold = replace(fold, entries=tuple(entries), cells=cells)
    row = judge_attention(build_votes([0] * 20 + [1] * 20, labels), fold)
    assert row["information"] == pytest.approx(1, abs=0.05)
    assert row["over_source"] == pytest.approx(0, abs=1e-9)
    assert not row["passes"]["over_source"]


def test_the_operating_point_counts() -> None:
    y = torch.tensor([0, 1])
    votes = build_votes([0, 0], [0, 1], sharp=1.0)
    assert is_right(votes, votes.weights, y).all()
    assert is_right(votes._replace(cut=5.0), votes.weights, y).tolist() == [True, False]


def test_constant_weights_pass_nothing_but_that_they_stay() -> None:
    planes, labels = ["axial", "coronal"] * 20, [0, 0, 1, 1] * 10
    votes = build_votes([0] * 40, labels)
    row = judge_attention(votes, build_fold(planes, labels))
    assert row["sd"] == 0 and row["information"] == 0
    passes = row["passes"]
    assert not passes["sd"] and not passes["information"] and passes["kept"]


def test_routes_under_attack_are_compared_scan_by_scan() -> None:
    labels = [0, 1] * 10
    votes = build_votes([0, 1] * 10, labels)
    moved = votes.moved.clone()
    moved[:5] = 1 - moved[:5]
    row = judge_attention(votes._replace(moved=moved), build_fold(["axial"] * 20, labels))
    assert row["kept"] == 0.75 and not row["passes"]["kept"]


def test_votes_are_those_of_the_mixture(pipeline: MedFedPure) -> None:
    fold = build_fold(["axial", "coronal", "sagittal"], [0, 1, 0])
    votes = read_votes(pipeline, fold, batch_size=2)
    x, _ = fold.all(torch.device("cpu"))
    with torch.no_grad():
        output = pipeline.classifier.model.outputs(x)
    torch.testing.assert_close(votes.weights, output.attention.double(), atol=1e-5, rtol=1e-4)
    mixed = torch.logsumexp(votes.weights.log()[:, :, None] + votes.log_probs, 1)
    torch.testing.assert_close(mixed, output.logits.double(), atol=1e-4, rtol=1e-4)


def test_the_table_says_what_passes() -> None:
    planes, labels = ["axial", "coronal"] * 20, [0, 0, 1, 1] * 10
    row = judge_attention(build_votes([0] * 40, labels), build_fold(planes, labels))
    provenance = {
        "date": "2026-11-29", "commit": "c" * 40,
        "machine": {"device_name": "cpu", "threads": 1},
    }  # fmt: skip
    result = {"provenance": provenance, "rows": {"attention": row}, "warnings": []}
    lines = table({"gate-patients": result}).splitlines()
    assert lines[2].startswith("| standard deviation") and lines[2].endswith(
        "| 0.000 | 0.15 | no |"
    )
    assert len([line for line in lines if line.startswith("| ")]) == len(LIMITS) + 2
