"""Out-of-distribution head in a federation: one round, the mean of the hospitals' heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train.__main__ import main
from train.federated.client.hospital import Hospital
from train.federated.client.local_state import ClientState
from train.federated.experiment import read_experiment
from train.federated.server.run_state import RESULT, STATE
from train.federated.state_file import StateError, read
from train.phases.novelty import Solver

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
batch_size = 8
[novelty]
scans = 30
outliers = 30
"""


@pytest.fixture
def learned(preset, trained):
    """Return the preset of three clients that have an autoencoder."""

    def learn(federated: str = "num_rounds = 1", strategy: str = "") -> Path:
        path = preset(federated, strategy=strategy)
        path.write_text(path.read_text() + WORDS, encoding="utf-8")
        trained(path, "out", "mae")
        return path

    return learn


def record(out: Path) -> dict:
    return json.loads((out / "novelty" / RESULT).read_text(encoding="utf-8"))


def heads(out: Path) -> list[dict[str, torch.Tensor]]:
    """Read the final head of each client."""
    files = sorted((out / "clients").rglob("client-*/novelty.safetensors"))
    return [read(path, record(out)["digest"])[0] for path in files]


def record_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[int, dict[str, torch.Tensor]]]:
    """Record every head that a client solves, with its number of scans."""
    found, solve = [], Solver.solve

    def watching(self, head, train, seed):
        loss = solve(self, head, train, seed)
        found.append((len(train), {n: t.clone() for n, t in head.state_dict().items()}))
        return loss

    monkeypatch.setattr(Solver, "solve", watching)
    return found


def test_one_round_leads_to_the_mean_of_the_heads(learned, federate, tmp_path, monkeypatch):
    path, solved = learned("num_rounds = 3\nfraction = 0.6"), record_solved(monkeypatch)
    assert federate(path, "out", "novelty") == 0
    facts, kept = record(tmp_path / "out"), heads(tmp_path / "out")
    assert [r["trained"] for r in facts["rounds"]] == [[0, 1, 2]]  # all of them, whatever the share
    assert facts["final"]["summary"]["score"]["mean"] > 0.5
    assert len(kept) == len(solved) == 3
    assert not torch.equal(solved[0][1]["weight"], solved[1][1]["weight"])
    total = sum(count for count, _ in solved)
    for name in kept[0]:
        mean = sum(count * head[name].double() for count, head in solved) / total
        assert all(torch.equal(own[name], mean.float()) for own in kept)


@pytest.mark.slow
@pytest.mark.parametrize("way", ['share = "none"', "fedmedian", "dp_clip = 1.0\ndp_noise = 0.01"])
def test_where_no_mean_is_taken_each_keeps_its_own(learned, federate, tmp_path, monkeypatch, way):
    is_share = way.startswith("share")
    words = "num_rounds = 1\nmin_clients = 3" + (f"\n{way}" if is_share else "")
    strategy = "" if is_share else f'name = "{way}"' if way == "fedmedian" else way
    path, solved = learned(words, strategy), record_solved(monkeypatch)
    assert federate(path, "out", "novelty") == 0
    assert not read(tmp_path / "out/novelty" / STATE, record(tmp_path / "out")["digest"])[0]
    for (_, own), kept in zip(solved, heads(tmp_path / "out"), strict=True):
        assert all(torch.equal(kept[name], own[name]) for name in own)


@pytest.mark.slow
def test_secure_aggregation_reaches_the_same_head(learned, federate, tmp_path):
    path = learned("num_rounds = 1\nmin_clients = 3", "secagg = true")
    assert federate(path, "out", "novelty") == 0
    masked = heads(tmp_path / "out")[0]
    path.write_text(path.read_text().replace("secagg = true", ""), encoding="utf-8")
    assert federate(path, "plain", "mae") == 0 and federate(path, "plain", "novelty") == 0
    for name, value in heads(tmp_path / "plain")[0].items():
        # quantised, and the autoencoders that are beneath differ by as little
        torch.testing.assert_close(masked[name], value, atol=5e-3, rtol=0.05)


def test_a_client_that_missed_the_round_gets_the_head_too(learned, federate, tmp_path, monkeypatch):
    path, solve = learned(), Hospital.train

    def failing(self, shared, now, **options):
        if self.client == 1:
            raise RuntimeError("down")
        return solve(self, shared, now, **options)

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(path, "out", "novelty") == 0
    assert record(tmp_path / "out")["rounds"][0]["trained"] == [0, 2]
    assert len(heads(tmp_path / "out")) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("train", "0 clients answered of the 2"),
        ("evaluate", "no client could validate"),
    ],
)
def test_a_phase_without_result_can_be_run_again(
    learned, federate, tmp_path, monkeypatch, capsys, step, why
):
    def failing(self, shared, now, **options):
        raise RuntimeError("down")

    path = learned()
    with monkeypatch.context() as broken:
        broken.setattr(Hospital, step, failing)
        assert federate(path, "out", "novelty") == 1
    assert f"error: 1 rounds led to no network: {why}" in capsys.readouterr().err
    assert federate(path, "out", "novelty", "--resume") == 0
    assert record(tmp_path / "out")["rounds"][0]["trained"] == [0, 1, 2]
    assert len(heads(tmp_path / "out")) == 3


def test_a_head_that_refuses_a_hospital_s_own_scans_is_not_kept(
    learned, federate, tmp_path, monkeypatch
):
    path, solve = learned(), Solver.solve

    def spoilt(self, head, train, seed):
        loss = solve(self, head, train, seed)
        head.cut.fill_(-0.5)
        return loss

    monkeypatch.setattr(Solver, "solve", spoilt)
    assert federate(path, "out", "novelty") == 1
    failures = record(tmp_path / "out")["rounds"][0]["failures"]
    assert "the head would refuse 100% of client 0's" in failures["0 (validation)"]
    assert not list((tmp_path / "out/clients").rglob("novelty.safetensors"))


def test_a_head_belongs_to_its_autoencoder(learned, federate, tmp_path):
    path = learned()
    assert federate(path, "out", "novelty") == 0
    path.write_text(path.read_text().replace("[mae.fit]", "[mae.fit]\nlr = 0.01"))
    own = replace(read_experiment(str(path), "paper", 0), phase="novelty")
    with pytest.raises(StateError, match="other settings"):
        ClientState(tmp_path / "out" / "clients", own, 0).read_finished(own)


def test_without_the_autoencoder_it_says_what_to_train_first(preset, federate, tmp_path):
    assert federate(preset(), "out", "novelty") == 1
    assert (tmp_path / "out" / "novelty" / STATE).is_file()
    first = record(tmp_path / "out")["rounds"][0]
    assert "client 0 has no finished 'mae': train that phase first" in first["failures"]["0"]


def test_pictures_of_another_shape_have_no_such_phase(world, tmp_path, capsys):
    words = ["--preset", "cifar10-reduced", "--protocol", "cifar10", "--data", str(world / "data")]
    assert main(["federated", "novelty", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "one of mixture, plain, diffusion, mae, detector for preset 'cifar10-reduced'" in error
    assert not (tmp_path / "out").exists()
