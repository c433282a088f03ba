"""Detector: the paper's score by hand, thresholds, and the place of the error map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.attacks import PGD
from core.detector import SCORES, Detector, DetectorConfig, clip_features
from core.features import FEATURES, correlate, log_odds, multiply_with_gradient
from core.pipeline import MedFedPure
from core.steganalysis import blur, high_pass
from train.calibration.thresholds import store_thresholds


@pytest.fixture
def detector(system: MedFedPure) -> Detector:
    return system.detector


def draw(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def correlate_with_gradient(x: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
    return correlate(multiply_with_gradient(x, classify)[0])


def test_the_papers_score_is_eq_22(detector: Detector, phantoms: Tensor) -> None:
    """The score is the mean over the 196 patches of ||x_p - x_p'||^2, pixel by pixel."""
    detection, guess = detector(phantoms), detector.mae.reconstruct(phantoms)
    for i, scan in enumerate(phantoms):
        patches = [
            (scan[:, r : r + 16, c : c + 16] - guess[i, :, r : r + 16, c : c + 16]).square().sum()
            for r in range(0, 224, 16)
            for c in range(0, 224, 16)
        ]
        torch.testing.assert_close(detection.scores["paper"][i], torch.stack(patches).mean())
    torch.testing.assert_close(detection.error, (phantoms - guess).square())


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 5), (13, 13)])
def test_the_error_is_high_where_a_patch_was_changed(
    detector: Detector, phantoms: Tensor, row: int, column: int
) -> None:
    with torch.no_grad():
        detector.mae.decoder[-1].weight.mul_(0.1)  # untrained guesses, but quiet ones
    x = phantoms[:1].clone()
    rows, columns = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
    x[..., rows, columns] = 1.0
    before, after = detector(phantoms[:1]).error, detector(x).error
    assert after[..., rows, columns].mean() > 4 * before[..., rows, columns].mean()
    patches = torch.nn.functional.avg_pool2d(after, 16)[0, 0]
    assert divmod(int(patches.argmax()), 14) == (row, column)


def test_the_fused_score_is_a_logistic_regressions(detector: Detector, phantoms: Tensor) -> None:
    f = len(FEATURES)
    detector.centre.copy_(draw(f, 1))
    detector.spread.copy_(draw(f, 2).abs() + 0.5)
    detector.weight.copy_(draw(f, 3))
    detector.offset.fill_(0.7)
    detection = detector(phantoms)
    assert detection.features.shape == (4, f) and set(detection.scores) == set(SCORES)
    for i, features in enumerate(detection.features):
        terms = [
            float(detector.weight[j])
            * min(8, max(-8, float((features[j] - detector.centre[j]) / detector.spread[j])))
            for j in range(f)
        ]
        assert float(detection.scores["fused"][i]) == pytest.approx(sum(terms) + 0.7, abs=1e-4)


def test_the_match_finds_the_gradients_signs_and_no_other_noise(
    system: MedFedPure, phantoms: Tensor
) -> None:
    classify, y = system.plain_logits, torch.zeros(len(phantoms), dtype=torch.long)
    eps = 2 / 255
    attacked = PGD(eps, eps / 4, 7, eight_bit=True)(classify, phantoms, y)
    noise = eps * draw(phantoms.numel()).view(phantoms.shape).sign()
    found = {
        name: correlate_with_gradient(x, classify).detach()
        for name, x in {"clean": phantoms, "noise": (phantoms + noise).clamp(0, 1),
                        "attacked": attacked}.items()
    }  # fmt: skip
    assert found["attacked"].min() > 3 * max(found["clean"].max(), found["noise"].max())


def test_the_match_is_the_sum_over_its_spread(phantoms: Tensor) -> None:
    """The gradient of a linear classifier has the signs of its weights, pixel by pixel."""
    signs = draw(224 * 224).view(1, 1, 224, 224).sign()

    def classify(x: Tensor) -> Tensor:
        odds = (x * 0.01 * signs).sum((1, 2, 3))
        return torch.stack([-odds / 2, odds / 2], 1)

    x = phantoms + 0.004 * signs
    band = x - blur(x)
    product = band * (signs - blur(signs)) / (blur(band * band) + (1 / 255) ** 2)
    wanted = [abs(p.sum()) / math.sqrt(float((p * p).sum())) for p in product]
    with torch.inference_mode():
        torch.testing.assert_close(correlate_with_gradient(x, classify), torch.stack(wanted))
    z = x.clone().requires_grad_()
    correlate_with_gradient(z, classify).sum().backward()  # an attack can follow it
    assert z.grad is not None and (z.grad != 0).double().mean() > 0.99


def test_a_constant_classifier_matches_nothing(phantoms: Tensor) -> None:
    found = correlate_with_gradient(
        phantoms, lambda x: 0 * x.mean((1, 2, 3))[:, None].expand(-1, 2)
    )
    assert (found == 0).all()


def test_each_classifier_is_matched_by_its_own_feature(
    system: MedFedPure, phantoms: Tensor
) -> None:
    features = system.detector(phantoms).features.detach()
    for name, classify in (
        ("plain_match", system.plain_logits),
        ("trained_match", system.classifier_logits),
    ):
        wanted = (1 + correlate_with_gradient(phantoms, classify)).log()
        torch.testing.assert_close(features[:, FEATURES.index(name)], wanted)


def test_the_match_is_the_same_under_autocast(system: MedFedPure, phantoms: Tensor) -> None:
    exact = correlate_with_gradient(phantoms, system.classifier_logits)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            correlate_with_gradient(phantoms, system.classifier_logits), exact
        )


def test_a_feature_that_is_cut_off_can_still_be_followed() -> None:
    z = torch.tensor([[-30.0, 0.5, 30.0]], requires_grad=True)
    cut = clip_features(z)
    assert cut.tolist() == [[-8.0, 0.5, 8.0]]
    cut.sum().backward()
    assert z.grad is not None and z.grad.tolist() == [[1.0, 1.0, 1.0]]


def test_scores_are_the_same_alone_and_in_a_batch(detector: Detector, phantoms: Tensor) -> None:
    together = detector(phantoms)
    for i in range(4):
        alone = detector(phantoms[i : i + 1])
        torch.testing.assert_close(alone.features[0], together.features[i], atol=1e-4, rtol=0)
        for name in SCORES:
            torch.testing.assert_close(alone.scores[name][0], together.scores[name][i])


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_empty_scan_has_finite_scores(detector: Detector, level: float) -> None:
    detection = detector(torch.full((1, 1, 224, 224), level))
    assert detection.features.isfinite().all()
    assert all(score.isfinite().all() for score in detection.scores.values())


@pytest.mark.parametrize(
    ("kappa", "count", "flagged"), [(0.18, 600, 108), (0.05, 20, 1), (0.29, 100, 29), (0.18, 5, 0)]
)
def test_rank_flags_exactly_the_top_kappa(
    detector: Detector, kappa: float, count: int, flagged: int
) -> None:
    detector.config = DetectorConfig(kappa=kappa)
    scores = draw(count)
    flags = detector.flag_by_rank(scores)
    assert int(flags.sum()) == flagged
    if flagged:
        assert scores[flags].min() > scores[~flags].max()
    ties = detector.flag_by_rank(torch.zeros(count))
    assert int(ties.sum()) == flagged and ties[:flagged].all()


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.18, 0.5])
def test_tau_lets_the_stated_share_through(detector: Detector, score: str, share: float) -> None:
    clean = draw(500).exp()
    for config in (
        DetectorConfig(false_alarms=share),
        DetectorConfig(threshold="rank", kappa=share),
    ):
        detector.config = config
        store_thresholds(detector, score, clean, clean + 5)
        alarms = (clean > detector.tau(score)).float().mean().item()
        # the rank rule's is rounded upwards
        tolerance = 3 if config.threshold == "rank" else 1.5
        assert alarms == pytest.approx(share, abs=tolerance / 500)


def test_thresholds_come_from_the_config(detector: Detector) -> None:
    detector.config = DetectorConfig(score="paper", kappa=0.2, false_alarms=0.1)
    store_thresholds(detector, "paper", torch.arange(101.0), torch.tensor([100.0, 120.0, 500.0]))
    assert detector.tau() == 91  # of 101 scores the 92nd: ceil(102 * .9)
    assert detector.span_of() == pytest.approx(29)  # from tau to the median attack
    assert detector.tau("fused") == pytest.approx(0.95)  # the other score's is untouched
    detector.config = replace(detector.config, threshold="rank")
    assert detector.tau() == pytest.approx(
        81
    )  # stored beside the other rule's: 102 * .8 = 81.6, the 82nd
    store_thresholds(detector, "paper", torch.arange(101.0), torch.zeros(3))
    assert detector.span_of() > 0  # attacks that score low leave no negative depth


@pytest.mark.parametrize("n", [19, 33, 60, 90])
def test_tau_covers_scans_that_it_has_not_seen(detector: Detector, n: int) -> None:
    """False-positive rate on new clean scans over many calibrations, for any n from 19."""
    draws, new = 1000, draw(20_000, 1).sort().values
    alarms = 0.0
    for seed in range(draws):
        clean = draw(n, 2 + seed)
        store_thresholds(detector, "fused", clean, clean)
        alarms += 1 - int(torch.searchsorted(new, detector.tau("fused"), right=True)) / len(new)
    share = alarms / draws
    # binomial sd of a share is below .05 at n = 19; of the mean of 1,000 it is below .002
    assert 0.05 - 1 / (n + 1) - 0.005 < share < 0.055
    assert share == pytest.approx(1 - math.ceil((n + 1) * 0.95) / (n + 1), abs=0.005)


def test_with_too_few_scans_tau_is_the_highest_score(detector: Detector) -> None:
    store_thresholds(detector, "fused", torch.tensor([3.0, 1.0, 2.0]), torch.tensor([9.0]))
    assert detector.tau("fused") == 3


def test_confidence_is_a_share_and_never_falls(detector: Detector) -> None:
    clean = draw(400)
    store_thresholds(detector, "fused", clean, clean + 3)
    confidence = detector.confidence(torch.linspace(-5, 5, 200))
    assert (confidence.diff() >= 0).all()
    assert confidence[0] == 0 and confidence[-1] == 1
    assert float(detector.confidence(clean.median()[None])) == pytest.approx(0.5, abs=0.1)
    tau = torch.tensor([detector.tau("fused")])
    assert float(detector.confidence(tau)) == pytest.approx(0.95)
    true = (clean[:, None] < clean).float().mean(0)
    assert (detector.confidence(clean) - true).abs().max() < 0.1


def test_confidence_by_hand(detector: Detector) -> None:
    detector.quantiles[SCORES.index("fused")] = torch.tensor([0, 1, 1, 1, 3, 4, 5, 6, 7, 8, 20.0])
    detector.thresholds[:] = torch.tensor([12.0, 7.5])  # .95 and .82 of the scans are lower
    scores = torch.tensor([-1, 0, 0.5, 1, 2, 3, 4.5, 7.5, 8, 10, 12, 16, 20, 99])
    wanted = [0, 0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.82, 0.9, 0.925, 0.95, 0.975, 1, 1]
    assert detector.confidence(scores).tolist() == pytest.approx(wanted)


def test_quantiles_are_deciles_on_a_coarse_grid(detector: Detector) -> None:
    for top in (1.022, 1e4):  # an outlier moves the maximum alone
        clean = torch.cat([torch.linspace(-4.153, 1.0, 71), torch.tensor([top])])
        store_thresholds(detector, "paper", clean, clean)  # 2.1 from decile 3 to 7: the step is 1
        stored = detector.quantiles[SCORES.index("paper")]
        assert stored[:-1].tolist() == [-5, -4, -3, -3, -2, -2, -1, 0, 0, 1]
        assert top <= stored[-1] < top + 1
        assert detector.thresholds[SCORES.index("paper"), 0] == clean[69]  # exact: it decides
        rank = detector.thresholds[SCORES.index("paper"), 1]
        assert clean[59] < rank < clean[59] + 0.01 and float(rank) == pytest.approx(0.2, abs=1e-6)
    store_thresholds(detector, "fused", torch.full((3,), 0.25), torch.ones(3))
    assert detector.quantiles[SCORES.index("fused")].tolist() == pytest.approx([0.25] * 11)


def test_a_sure_answer_of_many_has_a_gradient() -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0, 0.0]], requires_grad=True)
    log_odds(logits).sum().backward()
    assert logits.grad is not None and logits.grad[0, 0] == pytest.approx(1.0, abs=1e-5)


def test_log_odds_by_hand() -> None:
    two = torch.tensor([[0.2, 0.8], [0.9, 0.1]])
    expected = [torch.tensor(4.0).log().item(), -torch.tensor(9.0).log().item()]
    assert log_odds(two.log()).tolist() == pytest.approx(expected)
    three = torch.tensor([[0.1, 0.75, 0.15]])
    assert log_odds(three.log()).tolist() == pytest.approx([torch.tensor(3.0).log().item()])


def test_a_flat_picture_has_no_fine_band() -> None:
    flat = torch.full((1, 1, 8, 8), 0.3)
    torch.testing.assert_close(blur(flat), flat)
    assert high_pass(flat).abs().max() < 1e-6
    spot = torch.zeros(1, 1, 5, 5)
    spot[..., 2, 2] = 9
    assert blur(spot)[0, 0].tolist() == [[0] * 5, *[[0, 1, 1, 1, 0]] * 3, [0] * 5]


def test_an_unknown_score_is_named(detector: Detector) -> None:
    with pytest.raises(ValueError, match="score must be one of paper, fused, got 'best'"):
        detector.tau("best")
    with pytest.raises(ValueError, match="got 'best'"):
        DetectorConfig(score="best")
    with pytest.raises(ValueError, match="threshold must be one of calibrated, rank, got 'none'"):
        DetectorConfig(threshold="none")


@pytest.mark.parametrize("bad", [{"kappa": 0.0}, {"kappa": 1.0}, {"false_alarms": -0.1}])
def test_shares_must_be_shares(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        DetectorConfig(**bad)
