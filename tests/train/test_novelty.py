from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from core.mae import MAEConfig, MaskedAutoencoder
from core.scan import to_uint8
from demo.phantom import phantom
from train.fold import Data
from train.logistic import logistic
from train.novelty import NoveltyPhase, fit_novelty
from train.outliers import KINDS, outlier

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scans() -> np.ndarray:
    return np.concatenate([to_uint8(phantom(i, i % 2 == 0)) for i in range(40)])


def data(scans: np.ndarray) -> Data:
    labels = [i % 2 for i in range(len(scans))]
    return Data(scans, torch.tensor(labels), [f"phantom/{y}" for y in labels], range(len(scans)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_draws_something_new_every_time(kind: str, scans: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    drawn = [outlier(rng, scans, kind) for _ in range(4)]
    assert all(p.shape == (224, 224) and p.dtype == np.uint8 for p in drawn)
    assert len({p.tobytes() for p in drawn}) == 4
    assert np.median([p.std() for p in drawn]) > 5  # no blank sheets
    assert not any((p == scan).all() for p in drawn for scan in scans)
    again = outlier(np.random.default_rng(0), scans, kind)
    assert (again == drawn[0]).all()


def test_the_head_refuses_drawings_and_judges_scans(scans: np.ndarray) -> None:
    torch.manual_seed(0)
    shape = MAEConfig(embed_dim=32, depth=1, num_heads=2, decoder_dim=16, decoder_heads=2)
    mae = MaskedAutoencoder(shape).eval()
    config = NoveltyPhase(scans=150, outliers=150, refused=0.05)
    head, figures = fit_novelty(
        mae, data(scans[:28]), data(scans[28:]), config, seed=0, device=CPU, report=lambda _: None
    )
    assert figures["val_refused"] == 0  # twelve scans cannot show that few are refused
    assert figures["score"] > 0.5  # even with an autoencoder that has learned nothing
    assert set(figures) == {"val_refused", "score", *(f"refused_{kind}" for kind in KINDS)}
    unseen = torch.stack([phantom(100 + i, False) for i in range(10)])
    blocks = torch.rand(10, 1, 8, 8).repeat_interleave(28, 2).repeat_interleave(28, 3)
    with torch.no_grad():
        assert float((head(mae.encode(unseen)) > head.limit).float().mean()) <= 0.2
        assert bool((head(mae.encode(blocks)) > head.limit).all())


@pytest.mark.parametrize(
    "wrong", [{"scans": 3}, {"outliers": 0}, {"refused": 0.0}, {"refused": 1.0}, {"ridge": 0.0}]
)
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NoveltyPhase(**wrong)  # type: ignore[arg-type]


def test_logistic_agrees_with_scikit_learn() -> None:
    g = torch.Generator().manual_seed(0)
    zeros, ones = torch.randn(70, 3, generator=g), torch.randn(40, 3, generator=g) + 0.7
    weight, offset = logistic(zeros, ones, 0.01)
    share = np.r_[np.full(70, 0.5 / 70), np.full(40, 0.5 / 40)]
    peer = LogisticRegression(C=1 / 0.02, tol=1e-10, max_iter=1000)
    peer.fit(torch.cat([zeros, ones]).numpy(), np.r_[np.zeros(70), np.ones(40)], share)
    np.testing.assert_allclose(weight.numpy(), peer.coef_[0], atol=1e-4)
    assert float(offset) == pytest.approx(float(peer.intercept_[0]), abs=1e-4)
