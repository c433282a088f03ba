from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from core.mae import MAEConfig, MaskedAutoencoder
from core.novelty import Novelty
from core.scan import to_uint8
from demo.phantom import draw_phantom
from train.calibration.logistic import fit_logistic
from train.data.dataset import ScanDataset
from train.data.outliers import KINDS, draw_outlier
from train.phases.novelty import NoveltyPhase, Solver

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scans() -> np.ndarray:
    return np.concatenate([to_uint8(draw_phantom(i, i % 2 == 0)) for i in range(40)])


def data(scans: np.ndarray) -> ScanDataset:
    labels = [i % 2 for i in range(len(scans))]
    return ScanDataset(
        scans, torch.tensor(labels), [f"phantom/{y}" for y in labels], range(len(scans))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_draws_something_new_every_time(kind: str, scans: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_outlier(rng, scans, kind) for _ in range(4)]
    assert all(p.shape == (224, 224) and p.dtype == np.uint8 for p in drawn)
    assert len({p.tobytes() for p in drawn}) == 4
    assert np.median([p.std() for p in drawn]) > 5  # no blank sheets
    assert not any((p == scan).all() for p in drawn for scan in scans)
    again = draw_outlier(np.random.default_rng(0), scans, kind)
    assert (again == drawn[0]).all()


@pytest.fixture(scope="module")
def mae() -> MaskedAutoencoder:
    torch.manual_seed(0)
    shape = MAEConfig(embed_dim=32, depth=1, num_heads=2, decoder_dim=16, decoder_heads=2)
    return MaskedAutoencoder(shape).eval()


def solver(mae: MaskedAutoencoder, val: np.ndarray, count: int = 50, **settings: float) -> Solver:
    return Solver(mae, data(val), NoveltyPhase(scans=count, outliers=count, **settings), CPU)  # type: ignore[arg-type]


def shares(head: Novelty, mae: MaskedAutoencoder) -> tuple[float, float]:
    """Return the shares refused of new phantoms and of pictures of coarse blocks."""
    unseen = torch.stack([draw_phantom(100 + i, False) for i in range(10)])
    blocks = torch.rand(10, 1, 8, 8).repeat_interleave(28, 2).repeat_interleave(28, 3)
    with torch.no_grad():
        known, strange = (head(mae.encode(x)) > head.limit for x in (unseen, blocks))
    return float(known.float().mean()), float(strange.float().mean())


def test_the_head_refuses_outliers_and_judges_scans(
    scans: np.ndarray, mae: MaskedAutoencoder
) -> None:
    head, own = Novelty(32), solver(mae, scans[28:], 150)
    untrained = own.validate(head)
    assert untrained["val_refused"] == untrained["refused_leaves"] == 0
    loss = own.solve(head, data(scans[:28]), seed=0)
    assert 0 < loss < 0.3
    figures = own.validate(head)
    assert figures["val_refused"] <= 1 / 12 and figures["score"] > 0.75
    assert set(figures) == {"val_refused", "score", *(f"refused_{kind}" for kind in KINDS)}
    known, strange = shares(head, mae)
    assert known <= 0.2 and strange == 1


def test_the_limit_lies_where_a_normal_has_the_share_above(
    scans: np.ndarray, mae: MaskedAutoencoder
) -> None:
    x, _ = data(scans[28:]).all(CPU)
    for share, above in ((0.005, 2.5758), (0.16, 0.9945)):
        solver(mae, scans[28:], refused=share).solve(head := Novelty(32), data(scans[:28]), seed=0)
        with torch.no_grad():
            clean = head(mae.encode(x))
        wanted = clean.mean() + above * clean.std(correction=0)
        assert float(head.limit) == pytest.approx(float(wanted), abs=1e-3)


def test_one_validation_scan_is_the_limit_itself(scans: np.ndarray, mae: MaskedAutoencoder) -> None:
    own = solver(mae, scans[39:])
    own.solve(head := Novelty(32), data(scans[:28]), seed=0)
    with torch.no_grad():
        assert float(head.limit) == pytest.approx(float(own._score_clean(head)), abs=1e-3)
    assert own.validate(head)["val_refused"] in (0.0, 1.0)  # it lies on the limit


def test_the_mean_of_heads_has_the_mean_of_their_scores(
    scans: np.ndarray, mae: MaskedAutoencoder
) -> None:
    heads = [Novelty(32) for _ in range(2)]
    for i, head in enumerate(heads):
        solver(mae, scans[28:]).solve(head, data(scans[14 * i : 14 * (i + 1)]), seed=i)
    mean = Novelty(32)
    mean.load_state_dict(
        {n: (t + heads[1].state_dict()[n]) / 2 for n, t in heads[0].state_dict().items()}
    )
    with torch.no_grad():
        tokens = mae.encode(data(scans[28:]).all(CPU)[0])
        said = sum(head(tokens) - head.limit for head in heads) / 2
        torch.testing.assert_close(mean(tokens) - mean.limit, said, atol=1e-4, rtol=1e-4)
    known, strange = shares(mean, mae)
    assert known <= 0.2 and strange == 1


@pytest.mark.parametrize(
    "wrong", [{"scans": 3}, {"outliers": 0}, {"refused": 0.0}, {"refused": 1.0}, {"ridge": 0.0}]
)
def test_invalid_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NoveltyPhase(**wrong)  # type: ignore[arg-type]


def test_logistic_agrees_with_scikit_learn() -> None:
    g = torch.Generator().manual_seed(0)
    zeros, ones = torch.randn(70, 3, generator=g), torch.randn(40, 3, generator=g) + 0.7
    weight, offset = fit_logistic(zeros, ones, 0.01)
    share = np.r_[np.full(70, 0.5 / 70), np.full(40, 0.5 / 40)]
    peer = LogisticRegression(C=1 / 0.02, tol=1e-10, max_iter=1000)
    peer.fit(torch.cat([zeros, ones]).numpy(), np.r_[np.zeros(70), np.ones(40)], share)
    np.testing.assert_allclose(weight.numpy(), peer.coef_[0], atol=1e-4)
    assert float(offset) == pytest.approx(float(peer.intercept_[0]), abs=1e-4)
