"""Warm start: a federation's first round starts from trained weights."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core import checkpoint
from core.checkpoint import WeightsError, write_manifest
from core.weights import PARTS, system_file_name
from tests.hospitals import write
from train.data.corpus import Corpus, load_corpus
from train.federated.client.hospital import Hospital
from train.federated.experiment import Experiment, read_experiment
from train.federated.server.run_state import RESULT, STATE, RunState
from train.federated.shared_parameters import COUNTER, STATISTICS
from train.federated.state_file import StateError
from train.federated.warm_start import WarmStart, load_personal_start

FILE = "classifier.safetensors"
PLACE = PARTS[FILE]


@pytest.fixture
def experiment(preset) -> Experiment:
    return read_experiment(str(preset("num_rounds = 2")), "paper", 0)


@pytest.fixture
def weights(experiment: Experiment, tmp_path: Path) -> Path:
    """Write weights in half precision whose experts differ from new ones."""
    shared = experiment.select_shared(experiment.build_model())
    g = torch.Generator().manual_seed(1)
    moved = {n: t + 0.01 * torch.randn(t.shape, generator=g) for n, t in shared.items()}
    return save_weights(tmp_path / "weights", moved)


def save_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    checkpoint.save(folder / FILE, tensors, {}, half=True)
    write_manifest(folder, [FILE], preset="tiny", protocol="paper", commit="none")
    return folder


def test_what_is_shared_starts_as_the_weights_hold_it(experiment, weights, tmp_path):
    state = RunState(experiment, tmp_path / "out", resume=False, start=weights)
    fresh = experiment.select_shared(experiment.build_model())
    held = checkpoint.load(weights / FILE).state_dict
    assert state.shared.keys() == fresh.keys() == held.keys()
    for name, tensor in state.shared.items():
        assert tensor.dtype == fresh[name].dtype and torch.equal(tensor, held[name].to(tensor))
        assert not torch.equal(tensor, fresh[name])


def test_a_tensor_that_the_weights_leave_out_starts_fresh(experiment, weights, tmp_path):
    held = checkpoint.load(weights / FILE).state_dict
    left_out = held.popitem()[0]
    state = RunState(
        experiment, tmp_path / "o", resume=False, start=save_weights(tmp_path / "w", held)
    )
    assert torch.equal(
        state.shared[left_out], experiment.select_shared(experiment.build_model())[left_out]
    )


def test_statistics_of_all_hospitals_in_the_weights_are_no_start(experiment, weights, tmp_path):
    model = experiment.build_model().state_dict()
    merged = {n: torch.full_like(t, 0.5) for n, t in model.items() if n.endswith(STATISTICS)}
    held = checkpoint.load(weights / FILE).state_dict
    folder = save_weights(tmp_path / "w", {**held, **merged})
    state = RunState(experiment, tmp_path / "o", resume=False, start=folder)
    assert merged and state.shared.keys() == held.keys()


@pytest.fixture(scope="module")
def corpus(world: Path) -> Corpus:
    return load_corpus("paper", world / "data", world / "cache", world / "manifests")


# --- what each hospital keeps --------------------------------------------------------------------


@pytest.fixture
def own_attention(experiment: Experiment, weights: Path) -> dict[str, torch.Tensor]:
    """Write hospital 2's attention beside the weights; hospital 1 has none."""
    fresh = experiment.select_personal(experiment.build_model())
    own = {n: torch.full_like(t, 0.5) for n, t in fresh.items()}
    file = system_file_name(2)
    config = {"info": {"hospital": 2, "federated": asdict(experiment.config.partition)}}
    checkpoint.save(weights / file, {f"{PLACE}.{n}": t for n, t in own.items()}, config)
    write_manifest(weights, [FILE, file], preset="tiny", protocol="paper", commit="none")
    return own


def test_parts_of_another_network_are_refused(experiment, corpus, tiny_system, tmp_path):
    write(copy.deepcopy(tiny_system), tmp_path / "weights")
    start = WarmStart({}, "", tmp_path / "weights")
    hospital = Hospital(experiment, corpus, 1, tmp_path / "states", start=start)
    system = experiment.preset.system
    other = replace(system, plain=replace(system.plain, hidden=9))
    hospital.experiment = replace(experiment, preset=experiment.preset.override(system=other))
    with pytest.raises(WeightsError, match=r"plain\.safetensors holds another network than preset"):
        hospital.build_system(["plain.safetensors"])


def test_a_hospital_finds_its_own_attention_and_no_other_s(experiment, weights, own_attention):
    own = load_personal_start(experiment, weights, 1).personal
    assert own.keys() == own_attention.keys() and own
    assert all(torch.equal(own[n], own_attention[n]) for n in own_attention)
    nothing = load_personal_start(experiment, weights, 0)
    assert not nothing.personal and nothing.sha256 == checkpoint.read_manifest(weights)[FILE].sha256


def test_a_hospital_measures_the_statistics_that_its_file_does_not_hold(
    experiment, weights, own_attention
):
    file = system_file_name(2)
    held = checkpoint.load(weights / file)
    left = {n: t for n, t in held.state_dict.items() if not n.endswith((*STATISTICS, COUNTER))}
    assert len(left) < len(held.state_dict)
    checkpoint.save(weights / file, left, held.config)
    write_manifest(weights, [FILE, file], preset="tiny", protocol="paper", commit="none")
    own = load_personal_start(experiment, weights, 1).personal
    assert {f"{PLACE}.{n}" for n in own} == set(left)


def test_its_first_round_starts_from_it_and_a_later_one_does_not(
    experiment, weights, own_attention, corpus, tmp_path, monkeypatch
):
    start = load_personal_start(experiment, weights, 1)
    hospital = Hospital(experiment, corpus, 1, tmp_path / "states", start=start)
    seen: list[dict[str, torch.Tensor]] = []

    def fit(model: torch.nn.Module, *_: object) -> float:
        seen.append({n: t.clone() for n, t in experiment.select_personal(model).items()})
        for parameter in model.parameters():
            parameter.data += 1
        return 0.0

    monkeypatch.setattr(hospital, "_fit", fit)
    shared = experiment.select_shared(experiment.build_model())
    hospital.train(shared, 1, has_joined=False)
    hospital.train(shared, 2, has_joined=True)
    learned = {n for n, _ in experiment.build_model().named_parameters()} & own_attention.keys()
    assert learned
    for name in learned:
        assert torch.equal(seen[0][name], own_attention[name]) and torch.equal(
            seen[1][name], own_attention[name] + 1
        )


@pytest.mark.parametrize("change", ["shape", "name", "partition", "protocol", "hospital"])
def test_what_another_hospital_kept_is_refused(experiment, weights, own_attention, change):
    file, protocol, message = (
        system_file_name(2),
        "paper",
        "another attention than preset 'tiny'",
    )
    state = {f"{PLACE}.{n}": t for n, t in own_attention.items()}
    name, partition = next(iter(state)), asdict(experiment.config.partition)
    if change == "shape":
        state[name] = torch.zeros(1, 2, 3)
    elif change == "name":
        state[f"{PLACE}.a.stranger"] = state.pop(name)
    elif change == "partition":
        partition["num_clients"], message = 7, "hospitals hold other scans"
    elif change == "hospital":
        message = "belongs to another hospital"
    else:
        protocol, message = "patients", "trained on protocol 'patients'"
    info = {"hospital": 1 if change == "hospital" else 2, "federated": partition}
    checkpoint.save(weights / file, state, {"info": info})
    write_manifest(weights, [FILE, file], preset="tiny", protocol=protocol, commit="none")
    with pytest.raises(WeightsError, match=message):
        load_personal_start(experiment, weights, 1)


def test_a_federation_and_a_hospital_start_from_the_same(experiment, weights):
    start, none = load_personal_start(experiment, weights, 0), WarmStart({}, "")
    start.check(checkpoint.read_manifest(weights)[FILE].sha256, 0)
    none.check("", 0)
    for own, theirs in ((start, ""), (start, "f" * 64), (none, "f" * 64)):
        with pytest.raises(StateError, match=r"client 0 from .*both need the same --start"):
            own.check(theirs, 0)


@pytest.mark.slow
def test_the_command_starts_there_and_says_so(
    preset, federate, weights, own_attention, tmp_path, capsys, monkeypatch
):
    path, began = preset("num_rounds = 1"), {}
    fit = Hospital._fit

    def watched(hospital: Hospital, model: torch.nn.Module, *given: Any) -> float:
        began[hospital.client] = {n: t.clone() for n, t in model.state_dict().items()}
        return fit(hospital, model, *given)

    monkeypatch.setattr(Hospital, "_fit", watched)
    assert federate(path, "on", "--start", str(weights)) == 0
    held = checkpoint.load(weights / FILE).state_dict
    assert set(began) == {0, 1, 2}
    for client, state in began.items():
        learned = [
            n for n in own_attention if not n.endswith(("running_mean", "running_var", "tracked"))
        ]
        assert all(torch.equal(state[n], own_attention[n]) for n in learned) == (client == 1)
        assert all(torch.equal(state[n], t) for n, t in held.items())
    result = json.loads((tmp_path / "on" / "mixture" / RESULT).read_text())
    assert result["start"] == checkpoint.read_manifest(weights)[FILE].sha256
    assert federate(path, "on", "--resume") == 2
    assert "name the same --start" in capsys.readouterr().err
    assert federate(path, "on", "--resume", "--start", str(weights)) == 0


def test_resuming_rounds_of_other_weights_is_refused(experiment, weights, tmp_path):
    out = tmp_path / "out"
    state = RunState(experiment, out, resume=False, start=weights)
    summary = {"score": {"mean": 0.5}}
    state.add_round({"round": 1, "summary": summary, "skipped": ""}, state.shared)
    assert (out / STATE).is_file()
    again = RunState(experiment, out, resume=True, start=weights)
    assert [entry["round"] for entry in again.history] == [1]
    with pytest.raises(StateError, match="started from other weights"):
        RunState(experiment, out, resume=True)


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
    other = save_weights(tmp_path / "other", held)
    with pytest.raises(WeightsError, match="holds another network than preset 'tiny' trains"):
        RunState(experiment, tmp_path / "out", resume=False, start=other)


def test_weights_of_another_split_are_refused(experiment, weights, tmp_path):
    write_manifest(weights, [FILE], preset="tiny", protocol="patients", commit="none")
    with pytest.raises(WeightsError, match="trained on protocol 'patients'"):
        RunState(experiment, tmp_path / "out", resume=False, start=weights)


def test_a_folder_without_weights_is_refused(preset, federate, tmp_path, capsys):
    assert federate(preset(), "out", "--start", str(tmp_path / "none")) == 2
    assert "There are no weights in" in capsys.readouterr().err
