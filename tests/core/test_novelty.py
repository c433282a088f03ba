from __future__ import annotations

import pytest
import torch

from core.mae import MAEConfig, MaskedAutoencoder
from core.novelty import LOG_ODDS_UNIT, Novelty


def test_untrained_it_judges_everything() -> None:
    head = Novelty(4)
    assert bool((head(torch.rand(3, 5, 4) * 100) <= head.limit).all())


def test_it_is_linear_in_mean_and_spread_of_the_tokens() -> None:
    tokens = torch.randn(2, 9, 3)
    features = Novelty.features(tokens)
    torch.testing.assert_close(features[:, :3], tokens.mean(1))
    torch.testing.assert_close(features[:, 3:], tokens.std(1))
    head = Novelty(3)
    head.weight.copy_(torch.tensor([1.0, 0, 0, 0, 0, 4]) / LOG_ODDS_UNIT)
    head.offset.fill_(0.5 / LOG_ODDS_UNIT)
    expected = features[:, 0] + 4 * features[:, 5] + 0.5
    torch.testing.assert_close(head(tokens), expected)


def test_the_encoder_sees_every_patch() -> None:
    torch.manual_seed(0)
    shape = MAEConfig(embed_dim=8, depth=1, num_heads=2, decoder_dim=8, decoder_heads=2)
    mae = MaskedAutoencoder(shape).eval()
    x = torch.rand(1, 1, 224, 224)
    tokens = mae.encode(x)
    assert tokens.shape == (1, 196, 8)
    for corner in (0, 223):
        changed = x.clone()
        changed[0, 0, corner, corner] = 1 - changed[0, 0, corner, corner]
        assert not torch.equal(Novelty.features(mae.encode(changed)), Novelty.features(tokens))
    with pytest.raises(ValueError, match="expected scans"):
        mae.encode(x[:, :, :100])
