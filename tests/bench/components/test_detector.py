"""Detector figures: what separates does, what cannot does not."""

from copy import deepcopy

import pytest
import torch

from bench.components.detector import (
    add_bias_field,
    measure_alarms,
    measure_detection,
    quantize,
    score_fold,
    score_scans,
)
from bench.result_file import ResultFile
from core.detector import SCORES
from core.features import FEATURES


def test_every_score_and_feature_is_measured(pipeline, test_fold):
    found = score_fold(pipeline, fold=test_fold, label="clean", batch_size=3)
    assert set(found) == {*SCORES, *(f"feature {n}" for n in FEATURES)}
    assert all(v.shape == (len(test_fold),) for v in found.values())
    x, _, seeds = test_fold.batches(8, pipeline.device)[0]
    diagnoses = pipeline.read_batch(x, seeds)
    for name in SCORES:
        assert found[name].tolist() == pytest.approx([d.scores[name] for d in diagnoses], abs=1e-3)


def test_a_scan_against_itself_is_not_detected(pipeline, test_fold):
    x = test_fold.batches(8, pipeline.device)[0].x
    clean = score_scans(pipeline, x)
    figures = measure_detection(pipeline, clean, clean, test_fold.groups[: len(x)])["scores"]
    assert all(f["auroc"] == 0.5 for f in figures.values())


@pytest.fixture(scope="module")
def noisy(pipeline, test_fold):
    """Figures under strong noise."""
    x = test_fold.batches(8, pipeline.device)[0].x
    generator = torch.Generator().manual_seed(0)
    changed = quantize(x + 0.3 * torch.randn(x.shape, generator=generator))
    clean, attacked = score_scans(pipeline, x), score_scans(pipeline, changed)
    return measure_detection(pipeline, clean, attacked, test_fold.groups[: len(x)])


def test_strong_noise_raises_the_papers_score(noisy):
    figures = noisy["scores"]
    assert figures["feature quiet"]["auroc"] == 1.0
    assert figures["feature quiet"]["tpr_at_5"] == 1.0
    low, high = figures["paper"]["interval"]
    assert low <= figures["paper"]["auroc"] <= high


def test_false_alarms_are_counted_at_the_stored_tau(pipeline):
    tau = pipeline.detector.tau("paper")
    found = {"paper": torch.tensor([tau + 1, tau - 1, tau]), "fused": torch.zeros(3)}
    flagged = measure_alarms(pipeline, found, [0, 1, 2])["flagged"]["paper"]
    assert (flagged["k"], flagged["n"]) == (1, 3)


def test_eight_bit_is_on_the_grid():
    x = torch.tensor([-0.1, 0.5, 1.2])
    assert (quantize(x) * 255).tolist() == pytest.approx([0, 128, 255], abs=1e-4)


def test_the_interval_counts_near_duplicates_once(pipeline):
    """Twenty copies of each of four scans know no more than the four do."""
    negative, positive = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.5, 3.5, 4.5, 5.5])

    def width(copies: int, groups: list[int]) -> float:
        names = [*SCORES, *(f"feature {n}" for n in FEATURES)]
        pair = [dict.fromkeys(names, v.repeat_interleave(copies)) for v in (negative, positive)]
        low, high = measure_detection(pipeline, *pair, groups)["scores"]["paper"]["interval"]
        return high - low

    alone = width(1, [0, 1, 2, 3])
    assert width(20, [i // 20 for i in range(80)]) == pytest.approx(alone, abs=1e-6)
    assert width(20, list(range(80))) < alone / 2


def test_what_features_carry_adds_up(noisy):
    shares = noisy["carried"]
    assert set(shares) == set(FEATURES) and sum(shares.values()) == pytest.approx(1)
    assert all(share >= 0 for share in shares.values())


def test_a_bias_field_is_smooth_and_each_scan_s_own():
    x = torch.full((2, 1, 32, 32), 0.5)
    changed = add_bias_field(x, [1, 2])
    assert torch.equal(changed, add_bias_field(x, [1, 2])) and not torch.equal(
        changed[0], changed[1]
    )
    assert (changed / x - 1).abs().amax((1, 2, 3)).tolist() == pytest.approx([0.2, 0.2], abs=1e-5)
    assert float((changed[..., 1:] - changed[..., :-1]).abs().max()) < 0.03


def test_false_alarms_stand_by_source_and_by_hospital(pipeline, test_fold, tmp_path, monkeypatch):
    from bench.components import detector as command

    monkeypatch.setattr(command, "CURVE", (command.HEADLINE,))
    monkeypatch.setattr(command, "SURFACES", ("plain",))
    monkeypatch.setattr(command, "BENIGN", {})
    other = deepcopy(pipeline)
    other.detector.thresholds.fill_(-1e9)  # whatever it reads, it calls it an attack
    store = ResultFile(tmp_path / "detection.json", "detection", {}, {"machine": {}})
    command.measure(store, pipeline, test_fold, 8, {1: lambda: pipeline, 2: lambda: other})
    rows = store.content["rows"]
    clean = rows["clean"]
    assert set(clean["sources"]) == set(test_fold.sources)
    for name in SCORES:
        parts = [part["flagged"][name]["k"] for part in clean["sources"].values()]
        assert sum(parts) == clean["flagged"][name]["k"]
    assert rows["clean, hospital 1"]["flagged"] == clean["flagged"]
    assert rows["clean, hospital 2"]["flagged"]["fused"]["k"] == len(test_fold)
