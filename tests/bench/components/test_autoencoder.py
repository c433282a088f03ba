"""The filling that the autoencoder must beat is a decent one, and both see the same patches."""

import pytest
import torch

from bench.components.autoencoder import choose_power, compare, fill_in, mark_visible


def test_filling_is_the_weighted_mean_by_hand():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 9, 7, generator=generator)
    visible = torch.rand(x.shape, generator=generator) > 0.6
    filled = fill_in(x, visible, 3.0)
    for b in range(2):
        for i in range(9):
            for j in range(7):
                if visible[b, 0, i, j]:
                    expected = float(x[b, 0, i, j])
                else:
                    places = visible[b, 0].nonzero()
                    distance = (places - torch.tensor([i, j])).double().norm(dim=1)
                    weight = distance**-3.0
                    values = x[b, 0][visible[b, 0]].double()
                    expected = float((weight * values).sum() / weight.sum())
                assert float(filled[b, 0, i, j]) == pytest.approx(expected, abs=1e-5)


def test_filling_reads_nothing_that_is_hidden(test_fold, pipeline):
    mae = pipeline.detector.mae
    x = test_fold.batches(2, pipeline.device)[0].x
    order, _ = mae.random_masking(2, torch.Generator().manual_seed(0))
    visible = mark_visible(mae, x, order[:, : mae.config.num_kept])
    share = visible.flatten(1).double().mean(1)
    assert share.tolist() == [mae.config.num_kept / mae.config.num_patches] * 2
    other = torch.where(visible, x, torch.rand_like(x))
    assert torch.equal(fill_in(x, visible, 3.0)[~visible], fill_in(other, visible, 3.0)[~visible])


@pytest.mark.slow
def test_filling_beats_black_and_an_untrained_autoencoder(test_fold, validation, pipeline):
    choice = choose_power(pipeline.detector.mae, validation)
    assert choice["validation"][str(choice["power"])] == min(choice["validation"].values())
    for masks in ("random", "lattice"):
        row = compare(pipeline.detector.mae, test_fold, choice["power"], masks=masks)
        assert row["ratio"] > 1
        low, high = row["ratio_interval"]
        assert low <= row["ratio"] <= high
        assert row["n"] == len(test_fold)


def test_a_perfect_autoencoder_has_ratio_zero(test_fold, pipeline):
    mae = pipeline.detector.mae

    class Oracle(type(mae)):
        def forward(self, x, ids_keep):
            return self.patchify(x)

    oracle = Oracle(mae.config)
    assert compare(oracle, test_fold, 3.0)["ratio"] == 0.0
