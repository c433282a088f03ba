"""Parts that an export keeps of the weights that a federation started from."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from core import checkpoint
from core.checkpoint import WeightsError
from core.pipeline import MedFedPure
from core.weights import system_file_name
from tests.hospitals import COUNT, SPLIT, write
from train.federated.client.local_state import ClientState
from train.federated.experiment import Experiment, read_experiment
from train.federated.kept_parts import KeptParts
from train.federated.state_file import StateError
from train.recipes import FILES

CLIENTS = range(COUNT)


@pytest.fixture
def experiment(preset) -> Experiment:
    return read_experiment(str(preset("num_rounds = 2")), "paper", 0)


@pytest.fixture(scope="module")
def weights(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write(copy.deepcopy(tiny_system), folder)
    return folder


def finish(experiment: Experiment, states: Path, *names: str, clients=CLIENTS) -> None:
    """Leave the files of rounds or finished phases that clients would have."""
    for client in clients:
        folder = ClientState(states, experiment, client).folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}.safetensors").touch()


def keep(start: Path | None, experiment: Experiment, states: Path, split: str = SPLIT) -> KeptParts:
    return KeptParts(start, experiment, CLIENTS, states, split)


def test_what_was_not_trained_further_is_kept(experiment, weights, tmp_path):
    finish(experiment, tmp_path, "mixture", "mixture-round-00002")
    found = keep(weights, experiment, tmp_path)
    assert set(found.names) == set(FILES.values()) - {FILES["mixture"]}
    assert all(found.names.values())
    assert keep(None, experiment, tmp_path).names == {}


@pytest.mark.parametrize(
    ("names", "clients", "sentence"),
    [
        ((), CLIENTS, "no client has finished a phase in"),
        (("mixture-round-00001",), CLIENTS, "client 0 has no finished 'mixture'"),
        (("mixture",), [0, 1], "client 2 has no finished 'mixture'"),
        (("mae",), CLIENTS, "the autoencoder was trained further: train 'novelty' too"),
    ],
)
def test_states_that_do_not_belong_together_are_refused(
    experiment, weights, tmp_path, names, clients, sentence
):
    finish(experiment, tmp_path, *names, clients=clients)
    with pytest.raises(StateError, match=sentence):
        keep(weights, experiment, tmp_path)


def test_weights_of_another_split_or_without_a_hospital_are_refused(experiment, weights, tmp_path):
    finish(experiment, tmp_path, "mixture")
    with pytest.raises(WeightsError, match="trained on another split"):
        keep(weights, experiment, tmp_path, split="f" * 64)
    lines = [n for n in checkpoint.read_manifest(weights) if n != system_file_name(2)]
    other = tmp_path / "other"
    other.mkdir()
    for name in lines:
        (other / name).write_bytes((weights / name).read_bytes())
    checkpoint.write_manifest(other, lines, preset="", protocol="", commit="")
    with pytest.raises(WeightsError, match=r"holds no hospital-02\.safetensors to start from"):
        keep(other, experiment, tmp_path)
