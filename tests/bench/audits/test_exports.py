"""The audit of exported files: it names members where a file stores them, and nobody elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.audits import exports
from bench.audits.exports import Site, measure_distances, measure_scores, summarize
from core.pipeline import MedFedPure
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.federated.client.batch_norm import measure_statistics


@pytest.fixture(scope="module")
def site(world: Path) -> Site:
    """Members are the training scans of the world, others its test scans."""
    folds = [
        load_fold("paper", fold, world / "data", cache=None, manifests=world / "manifests")
        for fold in ("train", "test")
    ]
    return Site(folds[0].pick(range(8)), folds[1])


def test_a_file_that_stores_every_score_names_every_member(
    tiny_system: MedFedPure, site: Site
) -> None:
    system = tiny_system
    x, _ = site.members.all(torch.device("cpu"))
    with torch.no_grad():
        scores = system.detector(x).scores
    before = {n: t.clone() for n, t in system.detector.state_dict().items()}
    try:
        quantiles = system.detector.quantiles
        thin = torch.linspace(0, 7, quantiles.shape[1]).round().long()
        for row, score in enumerate(exports.SCORES):
            quantiles[row] = scores[score].sort().values[thin]
        found = measure_scores(system, site, 4)
    finally:
        system.detector.load_state_dict(before)
    assert found["members"] == found["others"] == 8
    for figures in found["figures"].values():
        assert figures["matched"] == 8 and figures["exact"]["auc"] > exports.MOST
        assert figures["exact"]["tpr_at_1"] == pytest.approx(1.0)


def test_statistics_of_few_scans_are_nearer_to_these(tiny_system: MedFedPure, site: Site) -> None:
    model = tiny_system.classifier.model
    before = {n: t.clone() for n, t in model.state_dict().items()}
    few = ScanDataset(
        site.members.scans[:2], site.members.labels[:2], site.members.cells[:2], [0, 1]
    )
    try:
        measure_statistics(model, few, torch.device("cpu"))
        model.eval()
        near = measure_distances(model, site.members.pick([0, 1]), 4, "near")
        far = measure_distances(model, site.others, 4, "far")
    finally:
        model.load_state_dict(before)
    assert len(near) == 2 and len(far) == 8
    assert near.mean() < far.mean()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_score_that_says_nothing_has_half_the_area(site: Site) -> None:
    even = summarize(torch.arange(8.0), torch.arange(8.0), site)
    assert even["auc"] == 0.5 and even["interval"][0] < 0.5 < even["interval"][1]
    clear = summarize(torch.ones(8), torch.zeros(8), site)
    assert clear["auc"] == 1.0 and clear["interval"] == (1.0, 1.0) and clear["tpr_at_1"] == 1.0


def test_the_table_names_the_hospital_where_a_figure_tells_most() -> None:
    def figure(auc: float) -> dict[str, object]:
        return {"auc": auc, "interval": [auc - 0.1, auc + 0.1], "tpr_at_1": 0.02}

    def scores(auc: float) -> dict[str, object]:
        both = {"exact": figure(auc), "near": figure(0.5), "matched": 1}
        return {"figures": {"fused": both}, **ABOUT}

    statistics = {
        "figures": {"distance": figure(0.6)}, "hospital_named": {"k": 3, "n": 4, "hospitals": 2},
        **ABOUT,
    }  # fmt: skip
    rows = {
        "scores, hospital 1": scores(0.51),
        "scores, hospital 2": scores(0.54),
        "statistics, hospital 1": statistics,
    }
    text = exports.table({"exports-patients": {"rows": rows, "warnings": [], "provenance": {}}})
    assert (
        "| score 'fused', exact match | 0.525 | 0.540 [0.440 to 0.640] (hospital 2) | 2.0 | 0.55"
        in text
    )
    assert "| normalisation, distance | 0.600 |" in text
    assert "own hospital for 3 of 4 (75.0 %; one in 2 by chance)" in text


ABOUT = {"date": "2026-12-01", "commit": "0", "dirty": False,
         "machine": {"device_name": "CPU", "threads": 1}}  # fmt: skip
