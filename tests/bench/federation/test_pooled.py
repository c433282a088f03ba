"""Federated against pooled: the same scans, each read by its own hospital."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from bench.federation import pooled
from bench.result_file import ResultFile
from core.pipeline import MedFedPure
from train.data.corpus import load_corpus


@pytest.mark.slow
def test_the_same_system_is_no_better_than_itself_and_another_one_differs(
    tiny_system: MedFedPure, world: Path, tmp_path: Path
) -> None:
    corpus = load_corpus("paper", world / "data", world / "cache", world / "manifests")
    scans = [corpus.val.pick([0, 1]), corpus.val.pick([2, 3, 4])]
    other = copy.deepcopy(tiny_system)
    other.classifier.bias.copy_(torch.tensor([0.0, 50.0]))  # says tumour, whatever it sees
    path = tmp_path / "pooled-paper.json"
    store = ResultFile(path, "pooled", {"a": 1}, {"machine": {"device_name": "x", "threads": 1}})
    pooled.measure(store, [tiny_system, other], tiny_system, scans, eps=0.015)
    store.write()
    rows = json.loads(path.read_text())["rows"]
    assert set(rows) == {"clean", "A0", "A0-8bit", "transfer", "mae", "diffusion"}
    assert len(rows["transfer"]["matrix"]) == 2 and rows["transfer"]["n"] == 5
    mixture = rows["clean"]["trained-mixture"]
    assert mixture["federated"]["n"] == mixture["pooled"]["n"] == 5
    gap = rows["clean"]["difference"]
    assert gap["undefended"]["points"] == 0 and gap["undefended"]["p"] == 1
    wrong = int((scans[1].labels == 0).sum())  # of the second hospital's
    k = mixture["federated"]["k"]
    assert k <= 5 - wrong
    expected = 100 * (k - mixture["pooled"]["k"]) / 5
    assert gap["trained-mixture"]["points"] == pytest.approx(expected)
    assert rows["mae"]["federated"] == rows["mae"]["pooled"]
    assert rows["mae"]["n"] == 5 and set(rows["mae"]["pooled"]) == {"random", "lattice"}
    text = pooled.render({path.stem: json.loads(path.read_text())})
    assert (
        "attacked through another hospital's" in text
        and "full pipeline" in text
        and "| mae | random |" in text
    )
