"""A federation that goes on from trained weights: its first round starts where they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core import checkpoint
from core.checkpoint import WeightsError, write_manifest
from train.federated.experiment import Experiment, read_experiment
from train.federated.ledger import RESULT, STATE, Ledger
from train.federated.state import StateError

FILE = "classifier.safetensors"


@pytest.fixture
def experiment(preset) -> Experiment:
    return read_experiment(str(preset("num_rounds = 2")), "leak-free", 0)


@pytest.fixture
def weights(experiment: Experiment, tmp_path: Path) -> Path:
    """A folder of weights in half precision whose experts hold other numbers than fresh ones."""
    shared = experiment.shared(experiment.model())
    g = torch.Generator().manual_seed(1)
    moved = {n: t + 0.01 * torch.randn(t.shape, generator=g) for n, t in shared.items()}
    return saved(tmp_path / "weights", moved)


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    checkpoint.save(folder / FILE, tensors, {}, half=True)
    write_manifest(folder, [FILE], preset="tiny", protocol="leak-free", commit="none")
    return folder


def test_what_is_shared_starts_as_the_weights_hold_it(experiment, weights, tmp_path):
    ledger = Ledger(experiment, tmp_path / "out", resume=False, start=weights)
    fresh = experiment.shared(experiment.model())
    held = checkpoint.load(weights / FILE).state_dict
    assert ledger.shared.keys() == fresh.keys() == held.keys()
    for name, tensor in ledger.shared.items():
        assert tensor.dtype == fresh[name].dtype and torch.equal(tensor, held[name].to(tensor))
        assert not torch.equal(tensor, fresh[name])


def test_a_tensor_that_the_weights_leave_out_starts_fresh(experiment, weights, tmp_path):
    held = checkpoint.load(weights / FILE).state_dict
    left_out = held.popitem()[0]
    ledger = Ledger(experiment, tmp_path / "o", resume=False, start=saved(tmp_path / "w", held))
    assert torch.equal(ledger.shared[left_out], experiment.shared(experiment.model())[left_out])


@pytest.mark.slow
def test_the_command_starts_there_and_says_so(preset, federate, weights, tmp_path, capsys):
    path = preset("num_rounds = 1")
    assert federate(path, "on", "--start", str(weights)) == 0
    result = json.loads((tmp_path / "on" / "mixture" / RESULT).read_text())
    assert result["start"] == checkpoint.read_manifest(weights)[FILE].sha256
    assert federate(path, "on", "--resume") == 2
    assert "name the same --start" in capsys.readouterr().err
    assert federate(path, "on", "--resume", "--start", str(weights)) == 0


def test_going_on_with_rounds_of_other_weights_is_refused(experiment, weights, tmp_path):
    out = tmp_path / "out"
    ledger = Ledger(experiment, out, resume=False, start=weights)
    summary = {"score": {"mean": 0.5}}
    ledger.add({"round": 1, "summary": summary, "skipped": ""}, ledger.shared)
    assert (out / STATE).is_file()
    again = Ledger(experiment, out, resume=True, start=weights)
    assert [entry["round"] for entry in again.history] == [1]
    with pytest.raises(StateError, match="began from other weights"):
        Ledger(experiment, out, resume=True)


@pytest.mark.parametrize("change", ["shape", "name", "nothing"])
def test_another_network_is_refused(experiment, weights, tmp_path, change):
    held = dict(checkpoint.load(weights / FILE).state_dict)
    name = next(iter(held))
    if change == "shape":
        held[name] = held[name][:1]
    elif change == "name":
        held["a.stranger"] = held.pop(name)
    else:
        held = {"a.stranger": held[name]}
    other = saved(tmp_path / "other", held)
    with pytest.raises(WeightsError, match="holds another network than preset 'tiny' trains"):
        Ledger(experiment, tmp_path / "out", resume=False, start=other)


def test_weights_of_another_split_are_refused(experiment, weights, tmp_path):
    write_manifest(weights, [FILE], preset="tiny", protocol="paper", commit="none")
    with pytest.raises(WeightsError, match="trained on protocol 'paper'"):
        Ledger(experiment, tmp_path / "out", resume=False, start=weights)


def test_a_folder_without_weights_is_refused(preset, federate, tmp_path, capsys):
    assert federate(preset(), "out", "--start", str(tmp_path / "none")) == 2
    assert "There are no weights in" in capsys.readouterr().err
