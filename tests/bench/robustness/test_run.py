"""Rows, systems and self-checks on an untrained system: what must hold whatever the weights."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.components.detector import score_scans
from bench.robustness.all_scans import PAIRS, choose_expert, evaluate_all
from bench.robustness.attacks import A0, A0_8BIT, CLEAN, Attacker, paper_rows
from bench.robustness.checks import check_rows
from bench.robustness.evaluate import measure_readings
from bench.robustness.systems import (
    ALL_SCANS_SYSTEMS,
    RANK,
    build_systems,
    classifier_of,
    read_together,
)
from bench.summaries import Reading, join_readings, summarize_reading
from core import metrics
from train.data.corpus import load_fold

EPS = 0.015
ATTACKER = Attacker(EPS)


def systems_named(pipeline, names=None):
    return build_systems(pipeline, names, tuple(ALL_SCANS_SYSTEMS))


@pytest.fixture(scope="module")
def alone(pipeline):
    """Systems that read a scan without any other."""
    return [s for s in systems_named(pipeline) if s.policy != RANK]


def test_every_system_has_its_meaning_and_pairs_exist(pipeline):
    systems = systems_named(pipeline)
    names = {s.name for s in systems}
    assert names == set(ALL_SCANS_SYSTEMS) and all(s.meaning for s in systems)
    assert {name for pair in PAIRS for name in pair} <= names


def test_unknown_rows_and_systems_are_named(pipeline):
    with pytest.raises(ValueError, match="unknown row 'A7'"):
        paper_rows(["A7"])
    with pytest.raises(ValueError, match="unknown system 'x'"):
        systems_named(pipeline, ["x"])
    assert [a.key for a in paper_rows(["A0", "clean"])] == ["clean", "A0", "A0-8bit"]


@pytest.mark.parametrize(
    ("probability", "message"),
    [(float("nan"), "undefended returns what is no number"),
     (0.7, "undefended says the same of every scan")],
)  # fmt: skip
def test_what_says_nothing_of_the_scans_is_refused(
    pipeline, test_fold, monkeypatch, probability, message
):
    both, system = test_fold.thin(4), systems_named(pipeline, ["undefended"])
    said = Reading(torch.full((4,), probability))
    monkeypatch.setattr("bench.robustness.evaluate.read_together", lambda *_: {"undefended": said})
    with pytest.raises(ValueError, match=message):
        evaluate_all(pipeline, both, CLEAN, ATTACKER, system, 99)


def test_one_answer_to_scans_of_one_class_is_none_to_refuse(pipeline, test_fold, monkeypatch):
    ill = test_fold.pick(test_fold.labels.nonzero()[:, 0].tolist())
    said = Reading(torch.ones(len(ill)))
    monkeypatch.setattr("bench.robustness.evaluate.read_together", lambda *_: {"undefended": said})
    found = evaluate_all(
        pipeline, ill, CLEAN, ATTACKER, systems_named(pipeline, ["undefended"]), 99
    )
    assert found["systems"]["undefended"]["k"] == len(ill)


def test_readings_agree_with_the_pipelines_own(alone, pipeline, test_fold):
    x, _, seeds = test_fold.batches(4, pipeline.device)[0]
    readings = read_together(pipeline, alone, x, seeds)
    diagnoses = pipeline.read_batch(x, seeds)
    policy = pipeline.config.purifier.policy
    name = "defence" if policy == "floor" else "defence-paper-policy"
    for i, diagnosis in enumerate(diagnoses):
        assert float(readings[name].probability[i]) == pytest.approx(
            diagnosis.tumour_probability, abs=1e-5
        )
        assert bool(readings[name].flagged[i]) == diagnosis.flagged
        assert float(readings["undefended"].probability[i]) == pytest.approx(
            diagnosis.tumour_probability_undefended, abs=1e-5
        )
        assert float(readings["trained-mixture"].probability[i]) == pytest.approx(
            diagnosis.tumour_probability_unpurified, abs=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_sharing_the_detector_and_purifier_changes_no_reading(
    alone, pipeline, test_fold, order, monkeypatch
):
    x, _, seeds = test_fold.batches(8, pipeline.device)[0]
    scores = pipeline.detect(x).scores["fused"]
    # a threshold in the middle: some scans are flagged, some are not
    monkeypatch.setattr(
        type(pipeline), "tau", property(lambda self: float(scores.median())), raising=True
    )
    together = read_together(pipeline, alone[::order], x, seeds)
    for system in alone:
        single = read_together(pipeline, [system], x, seeds)[system.name]
        assert torch.allclose(together[system.name].probability, single.probability, atol=1e-5)
        if system.policy:
            assert 0 < int(single.flagged.sum()) < len(x)
            assert torch.equal(together[system.name].t_star, single.t_star)


def test_uniform_attention_is_the_mean_of_the_experts(pipeline, test_fold):
    x = test_fold.batches(4, pipeline.device)[0].x
    experts = [classifier_of(pipeline, "expert", k)(x).exp() for k in range(2)]
    assert torch.allclose(
        classifier_of(pipeline, "uniform")(x).exp(), torch.stack(experts).mean(0), atol=1e-5
    )


@pytest.mark.slow
def test_the_published_gate_purifies_a_share_of_all_scans_whatever_they_are(
    pipeline, test_fold, monkeypatch
):
    n = len(test_fold)
    share = replace(pipeline.detector.config, kappa=0.25)
    monkeypatch.setattr(pipeline.detector, "config", share)
    systems = systems_named(pipeline)[1:4]
    for attack in (CLEAN, A0):
        whole, single = (
            measure_readings(pipeline, test_fold, attack, ATTACKER, systems, size)
            for size in (8, 3)
        )
        found = whole["defence-published-gate"]
        if attack is CLEAN:
            score = score_scans(pipeline, test_fold.batches(n, pipeline.device)[0].x)["paper"]
            top = score.topk(n // 4).indices.sort().values
            assert torch.equal(found.flagged.nonzero()[:, 0], top)
            depths = found.t_star[top]
            assert int(depths.min()) == pipeline.config.purifier.t_min  # the least suspicious
            assert torch.equal(depths.argsort(), score[top].argsort()) or len(set(depths)) == 1
        assert int(found.flagged.sum()) == n // 4
        assert torch.equal(found.flagged, found.t_star > 0)
        assert torch.equal(found.flagged, single["defence-published-gate"].flagged)  # of the fold
        mixture = whole["trained-mixture"].probability
        assert torch.allclose(found.probability[~found.flagged], mixture[~found.flagged], atol=1e-5)
        assert not torch.allclose(found.probability, mixture, atol=1e-5)


@pytest.mark.slow
def test_a_row_is_the_same_in_any_batch_size(pipeline, test_fold):
    systems = systems_named(pipeline, ["defence", "undefended"])
    whole, single = (
        measure_readings(pipeline, test_fold, A0, ATTACKER, systems, size) for size in (8, 3)
    )
    for name in whole:
        assert torch.allclose(whole[name].probability, single[name].probability, atol=1e-3)


def test_attacks_raise_the_loss(pipeline, test_fold):
    scans = test_fold.batches(8, pipeline.device)[0]

    (system,) = systems_named(pipeline, ["undefended"])
    logits = classifier_of(pipeline, "plain")

    (found,) = A0.generate(ATTACKER, system, scans)
    assert float((found - scans.x).abs().max()) <= EPS + 1e-6
    before, after = (
        F.cross_entropy(logits(z), scans.y, reduction="none") for z in (scans.x, found)
    )
    assert (after >= before - 1e-6).all()
    assert next(CLEAN.generate(ATTACKER, system, scans)) is scans.x


def test_a_row_holds_every_figure(pipeline, test_fold):
    row = evaluate_all(pipeline, test_fold, A0_8BIT, ATTACKER, systems_named(pipeline))
    for name, block in row["systems"].items():
        assert block["n"] == len(test_fold)
        assert block["k"] / block["n"] == block["accuracy"]
        low, high = block["interval"]
        assert low <= block["accuracy"] <= high
        assert {"sensitivity", "specificity", "auc", "calibration_error", "recall"} <= block.keys()
        assert ("flagged" in block) == name.startswith(("defence", "plain-purified"))
    weights = row["systems"]["defence"]["attention"]
    assert sum(weights["mean"]) == pytest.approx(1, abs=1e-5)
    assert len(weights["sd"]) == len(pipeline.classifier.model.experts)
    assert row["mcnemar"]["defence / undefended"].keys() == {"only_first", "only_second", "p"}


def test_figures_of_a_single_class_leave_out_what_needs_two(test_fold):
    healthy = test_fold.pick([i for i, y in enumerate(test_fold.labels.tolist()) if y == 0])
    block = summarize_reading(Reading(torch.full((len(healthy),), 0.2)), healthy)
    assert block["specificity"] == 1.0
    assert "auc" not in block
    assert "sensitivity" not in block


def test_sources_stand_apart_where_there_are_several(data):
    fold = load_fold("patients", "test", data[0], cache=None, manifests=data[1])
    block = summarize_reading(Reading(fold.labels * 0.8 + 0.1), fold)
    assert {name: part["n"] for name, part in block["sources"].items()} == {
        "br35h": 8,
        "brain-tumor-mri": 4,
    }
    assert block["recall"]["glioma"]["n"] == 1
    assert block["accuracy"] == 1.0
    assert block["calibration_error"] == pytest.approx(0.1, abs=1e-6)


def test_join_keeps_order_and_absent_columns():
    joined = join_readings([Reading(torch.tensor([0.1, 0.2])), Reading(torch.tensor([0.3]))])
    assert joined.probability.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert joined.flagged is None


def test_the_best_expert_is_chosen_on_validation_scans(pipeline, validation):
    choice = choose_expert(pipeline, validation, EPS)
    sums = [s["clean"] + s["A0"] for s in choice["validation"]]
    assert sums[choice["expert"]] == max(sums)
    assert choice["n"] == len(validation)


def test_a_stronger_row_with_more_right_scans_is_a_warning():
    def row(accuracy):
        return {"systems": {"defence": {"accuracy": accuracy}}}

    assert check_rows({"clean": row(0.9), "A0": row(0.8), "A0-8bit": row(0.85)}) == []
    (warning,) = check_rows({"clean": row(0.8), "A0": row(0.85), "expert": {}})
    assert "A0 leaves 0.850, more than clean" in warning


def test_mcnemar_of_a_row_counts_scans(pipeline, test_fold):
    systems = systems_named(pipeline, ["defence", "undefended"])
    readings = measure_readings(pipeline, test_fold, CLEAN, ATTACKER, systems)
    right = {n: metrics.is_right(r.probability, test_fold.labels) for n, r in readings.items()}
    b, c, _ = metrics.mcnemar(right["defence"], right["undefended"])
    assert b - c == int(right["defence"].sum()) - int(right["undefended"].sum())
