"""Noise streams of one seed are independent and reproducible."""

from __future__ import annotations

import torch

from core.attacks.base import noise_in_ball
from core.diffusion import seeded_noise
from core.seeds import derive_seed


def test_a_large_number_added_to_a_seed_changes_nothing() -> None:
    """PyTorch's generator ignores high bits of a seed: the reason for `derive_seed`."""
    first, second = (
        torch.rand(4, generator=torch.Generator().manual_seed(s)) for s in (5, 5 + 2**32)
    )
    assert torch.equal(first, second)


def test_streams_differ_from_the_seed_from_each_other_and_between_seeds() -> None:
    drawn = {derive_seed(seed, stream) for seed in range(1000) for stream in ("a", "b", "draw 1")}
    assert len(drawn) == 3000 and all(0 <= seed < 2**32 for seed in drawn)
    assert not drawn & set(range(1000))
    assert derive_seed(3, "a") == derive_seed(3, "a") == 3693641028


def test_an_attack_starts_apart_from_the_purifier_s_noise() -> None:
    x = torch.zeros(4, 1, 64, 64)
    start, noise = noise_in_ball(x, 1.0, "linf", range(4)), seeded_noise((1, 64, 64), range(4))
    pair = torch.stack([start.flatten(), noise.flatten()])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.03
