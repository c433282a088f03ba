"""The command on a small system: its answers are the system's, its scopes those of the splits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.result_file import ResultFile
from bench.robustness.attacks import A0, CLEAN
from bench.unseen.run import find_scopes, measure, read_scans, thin_by_source
from bench.unseen.tables import ALL, NEVER, SYSTEMS, TABLES
from core.attacks import paper_attack
from core.novelty import LOG_ODDS_UNIT
from core.pipeline import MedFedPure
from train.data.corpus import load_fold
from train.data.dataset import ScanDataset
from train.data.split import Manifest


@pytest.fixture(scope="module")
def both(data) -> ScanDataset:
    """Eight scans of br35h and four of brain-tumor-mri."""
    return load_fold("patients", "test", data[0], cache=None, manifests=data[1])


def test_answers_are_those_of_the_system(pipeline: MedFedPure, test_fold: ScanDataset) -> None:
    few = test_fold.thin(4)
    x, y, seeds = few.batches(4, pipeline.device)[0]
    read = pipeline.with_options(policy="floor").read_batch(x, seeds)
    novelty = pipeline.measure_novelty(x)
    kept = pipeline.novelty.cut.clone()
    pipeline.novelty.cut.copy_(novelty.sort().values[1:3].mean() / LOG_ODDS_UNIT - 1e-9)
    try:
        clean = read_scans(pipeline, few, CLEAN, 3)
    finally:
        pipeline.novelty.cut.copy_(kept)
    expected = torch.tensor([d.tumour_probability for d in read], dtype=torch.float64).logit()
    assert clean.log_odds["defence"].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    expected = pipeline.plain_logits(x).exp()[:, 1].logit()
    assert clean.log_odds["undefended"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert clean.flagged.tolist() == [d.flagged for d in read]
    assert torch.equal(clean.refused, novelty > (novelty.sort().values[1:3].mean() - 1e-6))
    attacked = read_scans(pipeline, few, A0, 4)
    x_adv = paper_attack()(pipeline.classifier_logits, x, y, seeds)
    expected = pipeline.classifier_logits(x_adv).exp()[:, 1].logit()
    found = attacked.log_odds["trained-mixture"]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert not torch.equal(found, clean.log_odds["trained-mixture"])


def test_a_left_out_source_has_two_parts(both: ScanDataset) -> None:
    folds = ["test" if i % 3 else "train" for i in range(len(both))]
    entries = [replace(e, first_fold=f) for e, f in zip(both.entries, folds, strict=True)]
    used = {both.groups[1]}
    scopes = find_scopes(replace(both, entries=entries), used)
    left = [i for i, group in enumerate(both.groups) if group not in used]
    assert scopes[ALL] == range(len(both)) and scopes[NEVER] == left
    assert scopes[f"{NEVER}, test fold"] == [i for i in left if i % 3]
    assert scopes[f"{NEVER}, rest"] == [i for i in left if not i % 3]
    assert find_scopes(both, set(both.groups)) == {ALL: range(len(both))}


def test_rows_are_thinned_in_each_source() -> None:
    sources = ["a"] * 5 + ["b"] * 2
    scopes = {ALL: range(7), NEVER: [1, 2, 3, 6]}
    assert thin_by_source(scopes, sources, 3) == {ALL: [0, 2, 4, 5, 6], NEVER: [1, 2, 3, 6]}
    assert thin_by_source(scopes, sources, 2) == {ALL: [0, 4, 5, 6], NEVER: [1, 3, 6]}
    with pytest.raises(ValueError, match="limit must be at least 1"):
        thin_by_source(scopes, sources, 0)


def test_scans_that_trained_the_weights_are_told_apart(
    pipeline: MedFedPure, both: ScanDataset, store: ResultFile
) -> None:
    rows = [i for i, entry in enumerate(both.entries) if entry.source == "br35h"]
    lone = both.entries[rows[0]]
    trained = Manifest("without-br35h", (replace(lone, fold="train"),))
    shares = {i: 0.01 for i in range(len(both)) if both.labels[i]}
    measure(store, {None: pipeline}, both, shares, trained, 2, batch_size=8)
    found = store.content["rows"]
    twins = sum(both.groups[i] == lone.group for i in rows)
    assert found["overlap"]["sources"]["br35h"]["left"] == len(rows) - twins > 0
    assert found["overlap"]["sources"]["brain-tumor-mri"]["left"] == 4
    scopes = found["clean"]["scopes"]
    assert (scopes[ALL]["n"], scopes[NEVER]["n"]) == (len(both), len(both) - twins)
    assert set(scopes[ALL]["systems"]) == set(SYSTEMS)
    block = scopes[ALL]["systems"]["defence"]["sources"]["brain-tumor-mri"]
    assert set(block["kinds"]) == {"glioma", "meningioma", "pituitary"}
    assert block["sizes"]["small"]["n"] == block["tumours"] == 3
    assert found["A0"]["scopes"][ALL]["n"] == 4
    assert found["A0"]["attack"]["steps"] == 7
    results = {"unseen-patients": store.content}
    tables = {name: render(results) for name, render in TABLES.items()}
    counts = f"| br35h | {len(rows)} | 1 | {twins - 1} | {len(rows) - twins} |"
    assert counts in tables["unseen"]
    assert found["clean"]["hospitals"] == [] and "hospitals whose" not in tables["unseen"]
    found["clean"]["hospitals"] = [1, 5, 9]
    assert "read by the one of 3 hospitals whose patients" in TABLES["unseen"](results)
    head, every = tables["unseen"].split("| all scans |")
    assert "| brain-tumor-mri | clean | full pipeline" in head
    assert "| br35h | clean | full pipeline | 4 + 4;" in every
    assert "\n| brain-tumor-mri | clean | full pipeline" not in every  # as in the table above
    assert "| mean of br35h, brain-tumor-mri | clean |" in head
    assert "glioma" in tables["unseen-tumours"] and "large from 6.0 %" in tables["unseen-tumours"]
