"""Batch-norm statistics of all clients' scans together."""

from __future__ import annotations

import pytest
import torch

from train.federated.client.batch_norm import merge_statistics


def describe(scans: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "a.running_mean": scans.mean(0),
        "a.running_var": scans.var(0, correction=0),
        "a.weight": torch.ones(3),
        "a.num_batches_tracked": torch.tensor(7),
    }


def test_merged_statistics_are_those_of_all_scans() -> None:
    generator = torch.Generator().manual_seed(0)
    scans = [torch.randn(40, 3, generator=generator) * (i + 1) + i for i in range(2)]
    merged = merge_statistics([describe(x) for x in scans])
    every = torch.cat(scans)
    assert set(merged) == {"a.running_mean", "a.running_var"}
    torch.testing.assert_close(merged["a.running_mean"], every.mean(0))
    torch.testing.assert_close(merged["a.running_var"], every.var(0, correction=0))


def test_one_client_alone_keeps_its_own() -> None:
    state = {"running_mean": torch.tensor([2.0]), "running_var": torch.tensor([0.5])}
    merged = merge_statistics([state])
    assert merged["running_mean"].item() == pytest.approx(2)
    assert merged["running_var"].item() == pytest.approx(0.5)


def test_shares_weigh_the_clients() -> None:
    states = [
        {"running_mean": torch.tensor([m]), "running_var": torch.tensor([v])}
        for m, v in ((0.0, 1.0), (4.0, 2.0))
    ]
    merged = merge_statistics(states, [0.75, 0.25])
    assert merged["running_mean"].item() == pytest.approx(1)
    assert merged["running_var"].item() == pytest.approx(0.75 * 1 + 0.25 * (2 + 16) - 1)


def test_a_network_without_batch_norm_has_none() -> None:
    assert merge_statistics([{"weight": torch.ones(2)}]) == {}
