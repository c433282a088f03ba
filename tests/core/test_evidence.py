"""Evidence of the fused score: contributions that add up to it, and maps of their origin."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from core import load
from core.features import FEATURES, correlate, log_odds, multiply_with_gradient
from core.pipeline import MedFedPure
from core.steganalysis import high_pass
from demo.examples import load_examples

RESIDUAL, QUIET, NOISE, PLAIN, NETWORK = (
    FEATURES.index(name)
    for name in ("residual_mean", "quiet", "noise_estimate", "plain_match", "residual_net")
)


@pytest.fixture
def system(system: MedFedPure) -> MedFedPure:
    """Return a system with another centre, spread and weight for each feature."""
    generator = torch.Generator().manual_seed(3)
    detector = system.detector
    detector.centre.copy_(torch.randn(len(FEATURES), generator=generator))
    detector.spread.copy_(torch.rand(len(FEATURES), generator=generator) + 0.5)
    detector.weight.copy_(torch.rand(len(FEATURES), generator=generator) + 0.1)
    detector.offset.fill_(-2.5)
    return system


@pytest.fixture(scope="module")
def shipped() -> MedFedPure:
    return load()


def examples() -> list[Tensor]:
    return [torch.from_numpy(example.levels).float() / 255 for example in load_examples()[::2]]


def attack(system: MedFedPure, scan: Tensor, columns: slice) -> Tensor:
    """Move some columns by 4 / 255 along the signs of the plain classifier's gradient."""
    x = scan[None].clone().requires_grad_()
    odds = log_odds(system.plain_logits(x.clone()))
    signs = torch.autograd.grad(odds.sum(), x)[0].sign() * -odds.detach().sign()
    attacked = scan.clone()
    attacked[..., columns] += signs[0, ..., columns] * 4 / 255
    return (attacked.clamp(0, 1) * 255).round() / 255


def test_contributions_and_the_usual_score_add_up_to_the_score(
    system: MedFedPure, phantoms: Tensor
) -> None:
    for d in system.read_batch(phantoms, [0] * 4):
        assert d.usual_score == -2.5
        total = d.usual_score + sum(d.contributions.values())
        assert total == pytest.approx(d.scores["fused"], abs=1e-5)


def test_a_contribution_is_weight_times_deviations_up_to_eight(system: MedFedPure) -> None:
    detector = system.detector
    for deviations, counted in ((0.0, 0.0), (1.5, 1.5), (-3.0, -3.0), (40.0, 8.0), (-9.0, -8.0)):
        features = detector.centre + deviations * detector.spread
        wanted = counted * detector.weight
        torch.testing.assert_close(detector.explain(features[None])[0], wanted)


def test_a_map_counts_as_its_weight_times_deviations_up_to_eight(
    system: MedFedPure, phantoms: Tensor
) -> None:
    detector = system.detector
    parts = detector(phantoms).parts
    found = detector.locate(parts)
    assert found.shape == (4, len(FEATURES), 14, 14)
    white = parts.white.clamp(-8, 8).view(4, 14, 14) * detector.weight[RESIDUAL]
    torch.testing.assert_close(found[:, RESIDUAL], white)
    energy = (parts.noise + 1e-7).log().view(4, 14, 14)
    noise = ((energy - detector.centre[NOISE]) / detector.spread[NOISE]).clamp(-8, 8)
    torch.testing.assert_close(found[:, NOISE], noise * detector.weight[NOISE])


def test_a_matchs_map_is_the_match_of_each_patch_for_or_against_the_whole(
    system: MedFedPure, phantoms: Tensor
) -> None:
    product, _ = multiply_with_gradient(phantoms, system.plain_logits)
    found = system.detector.locate(system.detector(phantoms).parts)[:, PLAIN]
    for i in range(4):
        whole = product[i].sum().sign()
        for row, column in ((4, 5), (9, 7), (13, 0)):
            rows, columns = (slice(16 * at, 16 * at + 16) for at in (row, column))
            patch = product[i : i + 1, :, rows, columns]
            wanted = correlate(patch)[0] * patch.sum().sign() * whole
            weighed = system.detector.weight[PLAIN] * wanted.clamp(-8, 8)
            torch.testing.assert_close(found[i, row, column], weighed, atol=1e-4, rtol=1e-4)


def test_the_quiet_map_is_empty_but_for_the_quietest_fifth(
    system: MedFedPure, phantoms: Tensor
) -> None:
    noisy = phantoms + 0.01 * torch.rand(phantoms.shape, generator=torch.Generator().manual_seed(0))
    found = system.detector.locate(system.detector(noisy).parts)[:, QUIET]
    energy = high_pass(noisy).square().view(4, 14, 16, 14, 16).mean((2, 4))
    for one, energies in zip(found, energy, strict=True):
        limit = energies.flatten().sort().values[196 // 5 - 1]
        assert ((one != 0) == (energies <= limit)).all()
        assert int((one != 0).sum()) == 196 // 5


def test_the_networks_places_are_those_that_its_output_is_the_mean_of(
    system: MedFedPure, phantoms: Tensor
) -> None:
    network = copy.deepcopy(system.detector.residual_net)
    torch.nn.init.normal_(network.out.weight, generator=torch.Generator().manual_seed(0))
    places = network.judge_places(network.maps(phantoms))
    assert places.shape == (4, 28, 28) and places.std() > 0
    torch.testing.assert_close(places.mean((1, 2)), network(phantoms), atol=1e-5, rtol=1e-5)
    found = system.detector.locate(system.detector(phantoms).parts)[:, NETWORK]
    own = system.detector.residual_net
    cells = own.judge_places(own.maps(phantoms)).view(4, 14, 2, 14, 2).mean((2, 4))
    deviations = (cells - system.detector.centre[NETWORK]) / system.detector.spread[NETWORK]
    wanted = system.detector.weight[NETWORK] * deviations.clamp(-8, 8)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half", ["left", "right"])
def test_the_strongest_evidence_lies_where_the_scan_was_attacked(
    shipped: MedFedPure, half: str
) -> None:
    """Eighteen scans, attacked in each half, gave shares from .80 to .95; half is chance."""
    columns = {"left": slice(0, 112), "right": slice(112, 224)}[half]
    patches = {"left": slice(0, 7), "right": slice(7, 14)}[half]
    for scan in examples():
        d = shipped.read(attack(shipped, scan, columns))
        assert max(d.contributions, key=lambda name: d.contributions[name]) == "plain_match"
        raised = d.evidence["plain_match"].clamp_min(0)
        assert raised[:, patches].sum() > 0.7 * raised.sum()


def test_an_attacked_scan_has_more_evidence_than_a_clean_one_on_the_same_scale(
    shipped: MedFedPure,
) -> None:
    for scan in examples():
        scans = (scan, attack(shipped, scan, slice(None)))
        clean, after = (shipped.read(x).evidence["plain_match"] for x in scans)
        assert after.median() > clean.quantile(0.95)
