"""'Cannot judge' between hospitals: one round, the mean of their heads, nothing kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from train.config import PresetError
from train.federated.experiment import read_experiment
from train.federated.hospital import Hospital
from train.federated.ledger import RESULT, STATE
from train.federated.state import read
from train.novelty import Solver

WORDS = """
[system.mae]
embed_dim = 16
depth = 1
num_heads = 2
decoder_dim = 16
decoder_depth = 1
decoder_heads = 2
[mae.fit]
epochs = 1
batch_size = 4
[novelty]
scans = 30
outliers = 30
"""


@pytest.fixture
def learned(preset, federate, tmp_path):
    """The preset of three clients that have an autoencoder."""

    def learn(federated: str = "num_rounds = 1", strategy: str = "") -> Path:
        path = preset(federated, strategy=strategy)
        path.write_text(path.read_text() + WORDS, encoding="utf-8")
        assert federate(path, "out", "mae") == 0
        return path

    return learn


def record(out: Path) -> dict:
    return json.loads((out / "novelty" / RESULT).read_text(encoding="utf-8"))


def heads(out: Path) -> list[dict[str, torch.Tensor]]:
    """What each client ended with."""
    files = sorted((out / "clients").rglob("client-*/novelty.safetensors"))
    return [read(path, record(out)["digest"])[0] for path in files]


def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Every head that a client has solved from now on."""
    found, solve = [], Solver.solve

    def watching(self, head, train, seed):
        loss = solve(self, head, train, seed)
        found.append({n: t.clone() for n, t in head.state_dict().items()})
        return loss

    monkeypatch.setattr(Solver, "solve", watching)
    return found


def test_one_round_leads_to_the_mean_of_the_heads(learned, federate, tmp_path, monkeypatch):
    path, solved = learned("num_rounds = 3"), told(monkeypatch)
    assert federate(path, "out", "novelty") == 0
    facts = record(tmp_path / "out")
    assert len(facts["rounds"]) == 1 and facts["final"]["summary"]["score"]["mean"] > 0.5
    counts = [facts["final"]["clients"][c]["num-examples"] for c in "012"]
    assert len(counts) == len(solved) == 3
    assert not torch.equal(solved[0]["weight"], solved[1]["weight"])
    kept = heads(tmp_path / "out")
    assert all(torch.equal(kept[0][n], other[n]) for other in kept[1:] for n in kept[0])
    states = torch.stack([head["weight"] for head in solved])
    low, high = states.amin(0), states.amax(0)
    assert bool(((kept[0]["weight"] >= low) & (kept[0]["weight"] <= high)).all())


def test_secure_aggregation_reaches_the_same_head(learned, federate, tmp_path):
    path = learned("num_rounds = 1\nmin_clients = 3", "secagg = true")
    assert federate(path, "out", "novelty") == 0
    masked = heads(tmp_path / "out")[0]
    path.write_text(path.read_text().replace("secagg = true", ""), encoding="utf-8")
    assert federate(path, "plain", "mae") == 0 and federate(path, "plain", "novelty") == 0
    for name, value in heads(tmp_path / "plain")[0].items():
        # quantised, and the autoencoders that are beneath differ by as little
        torch.testing.assert_close(masked[name], value, atol=5e-3, rtol=0.05)


def test_who_missed_the_round_has_the_head_all_the_same(learned, federate, tmp_path, monkeypatch):
    path, solve = learned(), Hospital.train

    def failing(self, shared, now, **options):
        if self.client == 1:
            raise RuntimeError("down")
        return solve(self, shared, now, **options)

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(path, "out", "novelty") == 0
    assert record(tmp_path / "out")["rounds"][0]["trained"] == [0, 2]
    assert len(heads(tmp_path / "out")) == 3


def test_a_phase_of_which_no_round_counted_is_no_phase_and_can_be_asked_for_again(
    learned, federate, tmp_path, monkeypatch, capsys
):
    path, solve = learned(), Hospital.train

    def failing(self, shared, now, **options):
        raise RuntimeError("down")

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(path, "out", "novelty") == 1
    assert "error: no round counted: 0 clients answered of the 2" in capsys.readouterr().err
    monkeypatch.setattr(Hospital, "train", solve)
    assert federate(path, "out", "novelty", "--resume") == 0
    assert record(tmp_path / "out")["rounds"][0]["trained"] == [0, 1, 2]


def test_without_the_autoencoder_it_says_what_to_train_first(preset, federate, tmp_path):
    assert federate(preset(), "out", "novelty") == 1
    assert (tmp_path / "out" / "novelty" / STATE).is_file()
    first = record(tmp_path / "out")["rounds"][0]
    assert "client 0 has no finished 'mae': train that phase first" in first["failures"]["0"]


def test_pictures_of_another_shape_have_no_such_phase():
    with pytest.raises(PresetError, match=r"one of mixture.*'cifar10-reduced', got 'novelty'"):
        read_experiment("cifar10-reduced", "cifar10", 0, "novelty")
