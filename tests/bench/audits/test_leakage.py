"""The audit of leakage: it finds the leak where one is, and its figures mean what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import beta

from bench.audits import leakage, updates
from bench.audits.leakage import MATCHING, PATCHES, Audit, Budget, find_lower_bound, summarize
from bench.audits.updates import LEVELS
from core.pipeline import build
from tests.networks import NETWORKS, TWO_HOSPITALS
from train.config import read_preset
from train.data.corpus import Corpus, load_corpus

MAE = """
[system.mae]
embed_dim = 64
depth = 1
num_heads = 2
decoder_dim = 32
decoder_depth = 1
decoder_heads = 2
[system.unet]
unshuffle = 8
channels = [16, 16]
time_dim = 16
[mae.fit]
samples = 8
batch_size = 4
[diffusion.fit]
samples = 8
batch_size = 4
[classifier.fit]
samples = 8
batch_size = 4
[plain.fit]
samples = 8
batch_size = 4
"""
FEW = Budget(2, 1, 2)
Open = Callable[..., Audit]


@pytest.fixture(scope="module")
def corpus(world: Path) -> Corpus:
    return load_corpus("paper", world / "data", world / "cache", world / "manifests")


@pytest.fixture(scope="module")
def audit(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Open:
    preset = tmp_path_factory.mktemp("preset") / "audit.toml"
    preset.write_text('extends = "smoke"\n' + NETWORKS + MAE + TWO_HOSPITALS, encoding="utf-8")
    torch.manual_seed(0)
    system = build(read_preset(str(preset)).system).eval()

    def open_audit(phase: str, state: str = "last") -> Audit:
        return Audit(corpus, {1: system, 2: system}, str(preset), "paper", phase, state)

    return open_audit


@pytest.mark.parametrize("state", ["first", "last"])
def test_one_scan_s_gradient_of_the_autoencoder_names_it(audit: Open, state: str) -> None:
    found = audit("mae", state).measure("L0", FEW)
    copied = found["attacks"][PATCHES]
    assert copied["named"] == copied["n"] == 2 and found["is_leak"]


def test_a_round_of_the_autoencoder_is_measured_with_the_same_attacks(audit: Open) -> None:
    found = audit("mae").measure("L3", FEW)
    assert found["attacks"][MATCHING]["n"] == 1 and found["meaning"] == LEVELS["L3"].meaning
    assert set(found["floors"]) == {"mean scan", "nearest other", "black"}


@pytest.mark.parametrize("phase", ["mixture", "plain"])
def test_a_classifier_s_gradient_tells_the_label(audit: Open, phase: str) -> None:
    found = audit(phase).measure("L0", Budget(4, 1, 1))
    assert found["labels"] == {"k": 4, "n": 4}


@pytest.mark.parametrize("level", ["L0", "L1", "L2", "L5, SecAgg", "L5, policy"])
def test_every_level_sends_something_of_every_parameter(audit: Open, level: str) -> None:
    of = audit("diffusion")
    target = leakage.choose_targets(of.corpus, of.partition, 1, seed=0)[0]
    phase = of.open(target.hospital)
    before = {name: value.clone() for name, value in phase.shared.items()}
    sent = of.send(phase, LEVELS[level], target, 0)
    assert list(sent) == phase.names
    assert all(value.isfinite().all() for value in sent.values())
    assert sum(float(value.abs().sum()) for value in sent.values()) > 0
    for name, value in phase.shared.items():  # the network that the round starts from stays
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("level", ["L1", "L2", "L3"])
def test_the_target_is_learned_from(audit: Open, level: str, monkeypatch: Any) -> None:
    """Whatever the seed: a round draws with replacement and may leave a scan out."""
    of, seen = audit("plain"), []
    target = leakage.choose_targets(of.corpus, of.partition, 1, seed=0)[0]
    phase = of.open(target.hospital)

    def note(model: Any, part: Any, loss: Any, config: Any, **_: Any) -> None:
        steps = range(max(1, len(part) // config.batch_size))
        rows = torch.cat([updates.draw_rows(part.weights, config, step)[0] for step in steps])
        assert torch.equal(part.batch([0], torch.device("cpu"))[0], target.scan)
        seen.append(bool((rows == 0).any()))

    monkeypatch.setattr(updates, "fit", note)
    for seed in range(12):
        of.send(phase, LEVELS[level], target, seed)
    assert seen == [True] * 12


def test_a_policy_s_clip_bounds_what_is_sent(audit: Open, monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.audits.updates.POLICY", leakage_policy := _policy(1e-3))
    of = audit("plain")
    target = leakage.choose_targets(of.corpus, of.partition, 1, seed=0)[0]
    phase = of.open(target.hospital)
    sent = of.send(phase, LEVELS["L5, policy"], target, 0)
    norm = torch.cat([value.flatten() for value in sent.values()]).norm()
    assert float(norm) <= leakage_policy.clip * 1.001


def _policy(clip: float) -> Any:
    from train.federated.client.policy import Policy

    return Policy(clip=clip)


def test_a_leak_is_naming_above_chance_or_likeness_above_all_floors() -> None:
    def rows(ssim: float, rank: float, count: int = 40) -> list[dict[str, float]]:
        row = {"psnr": 10.0, "ssim": ssim, "ssim_head": ssim, "rank": rank, "chance": 0.005}
        return [row | {"target": n} for n in range(count)]

    floors = {"mean scan": rows(0.3, 5)}
    assert not summarize({MATCHING: rows(0.2, 3)}, floors)["is_leak"]
    assert summarize({MATCHING: [*rows(0.2, 3, 38), *rows(0.2, 0, 2)]}, floors)["is_leak"]
    assert not summarize({MATCHING: [*rows(0.2, 3, 39), *rows(0.2, 0, 1)]}, floors)["is_leak"]
    assert summarize({MATCHING: [*rows(0.2, 3, 39), *rows(0.6, 3, 1)]}, floors)["is_leak"]
    assert not summarize({MATCHING: rows(0.6, 3)}, {"mean scan": rows(0.7, 5)})["is_leak"]


@pytest.mark.parametrize(("k", "n"), [(0, 40), (1, 40), (2, 40), (7, 10), (10, 10)])
def test_the_lower_bound_is_clopper_and_pearson_s(k: int, n: int) -> None:
    exact = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    assert find_lower_bound(k, n) == pytest.approx(exact, abs=1e-9)


def test_the_table_has_a_line_an_attack() -> None:
    figures = {"n": 40, "psnr": 10.0, "ssim": 0.1, "ssim_head": 0.1, "best_ssim": 0.2, "named": 1,
               "named_at_least": 0.001, "rebuilt": 0}  # fmt: skip
    row = {"attacks": {MATCHING: figures}, "floors": {"black": figures}, "is_leak": False,
           "date": "2026-12-01", "commit": "0", "dirty": False,
           "machine": {"device_name": "CPU", "threads": 1}}  # fmt: skip
    result = {"rows": {"mae, last, L3": row}, "warnings": [], "provenance": {}}
    text = leakage.table({"leakage-patients": result})
    assert (
        "| mae, last, L3 | gradient matching | 10.0 | 0.10 | 0.20 | 1/40 | 0 | 0.10 | no |" in text
    )
