"""Federations in this process on phantoms: the laws of section III-D."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from core.moe import is_personal
from train.federated.client import client_app
from train.federated.client.hospital import Hospital
from train.federated.experiment import read_experiment
from train.federated.runtime.in_process import InProcessGrid
from train.federated.serialization import pack, unpack
from train.federated.server.live_table import LiveTable
from train.federated.server.registration import ClientRegistry
from train.federated.server.run_state import RESULT, STATE, RunState
from train.federated.state_file import read

FILES = (STATE, RESULT)


def result(out: Path) -> dict:
    return json.loads((out / "mixture" / RESULT).read_text(encoding="utf-8"))


def experts(out: Path, preset: Path, which: str = "last") -> dict[str, torch.Tensor]:
    tensors, _ = read(out / "mixture" / STATE, read_experiment(str(preset), "paper", 0).digest)
    return {n.removeprefix(f"{which}/"): t for n, t in tensors.items() if n.startswith(which)}


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Record every message and reply of all runs of a test."""
    heard: list[Message] = []
    answer = InProcessGrid._answer

    def listening(self: InProcessGrid, message: Message) -> Message:
        reply = answer(self, message)
        heard.extend(copy.deepcopy([message, reply]))  # the server lets go of what it has read
        return reply

    monkeypatch.setattr(InProcessGrid, "_answer", listening)
    return heard


def bytes_of(out: Path) -> list[bytes]:
    own = sorted((out / "clients").rglob("*.safetensors"))
    return [path.read_bytes() for path in [*(out / "mixture" / f for f in FILES), *own]]


# --- the method ----------------------------------------------------------------------------------


def test_experts_are_averaged_by_sample_count_and_nothing_personal_leaves(
    preset, federate, wire, tmp_path
):
    path = preset()
    assert federate(path) == 0
    shared = experts(tmp_path / "out", path)
    sent, counts = [], []
    for message in wire:
        assert message.has_content()
        for arrays in message.content.array_records.values():
            assert list(arrays) and not any(is_personal(name) for name in arrays)
            assert all(name.startswith("experts.") for name in arrays)
        is_reply = bool(message.metadata.reply_to_message_id)
        if is_reply and message.metadata.message_type == "train":
            sent.append(unpack(message.content.array_records["arrays"], shared, "it"))
            counts.append(message.content.metric_records["metrics"]["num-examples"])
    assert len(sent) == 3 and sum(counts) == 24
    for name, mean in shared.items():  # Eq. 23
        expected = sum(n * own[name] for n, own in zip(counts, sent, strict=True)) / sum(counts)
        assert torch.allclose(mean, expected, atol=1e-6)
    first = result(tmp_path / "out")["rounds"][0]
    assert first["trained"] == [0, 1, 2] and set(first["clients"]) == {"0", "1", "2"}
    assert set(first["summary"]) == {"clean", "pgd", "nll", "score"}


def test_with_equal_hospitals_the_mean_takes_no_account_of_their_scans(
    preset, federate, wire, tmp_path
):
    path = preset(clients='2\nkind = "dirichlet"\nconcentration = 5.0', strategy="equal = true")
    assert federate(path) == 0
    shared = experts(tmp_path / "out", path)
    replies = [m for m in wire if m.metadata.reply_to_message_id]
    trained = [m.content for m in replies if m.metadata.message_type == "train"]
    counts = {c.metric_records["metrics"]["num-examples"] for c in trained}
    sent = [unpack(c.array_records["arrays"], shared, "it") for c in trained]
    assert len(sent) == len(counts) == 2
    for name, mean in shared.items():
        assert torch.allclose(mean, sum(own[name] for own in sent) / 2, atol=1e-6)


def test_attention_stays_on_each_client_s_disk_and_differs(preset, trained, tmp_path):
    trained(preset("num_rounds = 2"))
    own = sorted((tmp_path / "out" / "clients").rglob("client-*/mixture-round-00002.safetensors"))
    assert len(own) == 3
    digest = result(tmp_path / "out")["digest"]
    states = [read(path, digest)[0] for path in own]
    assert all(any(is_personal(name) for name in s) for s in states)
    name = "attention.0.0.weight"
    assert not torch.equal(states[0][name], states[1][name])


def test_the_same_run_twice_leaves_the_same_bytes(preset, federate, trained, tmp_path):
    path = preset()
    trained(path, "a")
    assert federate(path, "b") == 0
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


@pytest.mark.slow
def test_a_late_client_adapts_its_attention_to_experts_that_do_not_move(
    preset, federate, tmp_path, monkeypatch
):
    adapted = {}
    adapt = Hospital._adapt

    def watching(self, model, shared, now, span):
        before = {name: t.clone() for name, t in model.state_dict().items()}
        adapt(self, model, shared, now, span)
        moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
        kept = ("num_batches_tracked", "running_mean", "running_var")
        adapted[self.client, now] = {n for n in moved if not n.endswith(kept)}

    monkeypatch.setattr(Hospital, "_adapt", watching)
    assert federate(preset("num_rounds = 2\nlate_clients = [2]\njoin_round = 2")) == 0
    rounds = result(tmp_path / "out")["rounds"]
    assert [r["trained"] for r in rounds] == [[0, 1], [0, 1, 2]]
    assert [sorted(r["clients"]) for r in rounds] == [["0", "1"], ["0", "1", "2"]]
    assert list(adapted) == [(2, 2)]
    assert adapted[2, 2] and all(is_personal(name) for name in adapted[2, 2])


@pytest.mark.slow
def test_a_client_that_joined_after_the_best_round_ends_with_a_network_too(
    preset, federate, tmp_path, monkeypatch
):
    monkeypatch.setattr(RunState, "best_round", property(lambda state: min(len(state.history), 1)))
    assert federate(preset("num_rounds = 4\nlate_clients = [2]\njoin_round = 2")) == 0
    final = result(tmp_path / "out")["final"]
    assert set(final["clients"]) == {"0", "1", "2"} and not final["failures"]
    folder = next((tmp_path / "out" / "clients").rglob("client-002"))
    assert (folder / "mixture.safetensors").is_file()
    kept = {path.stem for path in folder.glob("mixture-round-*")}
    assert kept == {f"mixture-round-{now:05d}" for now in (2, 3, 4)}  # its first, and the last two


@pytest.mark.slow
def test_a_share_of_the_clients_takes_part_as_the_seed_says(preset, federate, tmp_path):
    words = 'num_rounds = 2\nfraction = 0.6\nbatch_norm = "local"'
    assert federate(preset(words)) == 0
    rounds = result(tmp_path / "out")["rounds"]
    assert all(len(r["asked"]) == 2 for r in rounds)
    joined = {c for r in rounds for c in r["trained"]}
    assert {int(c) for c in rounds[1]["clients"]} == joined


@pytest.mark.slow
def test_secure_aggregation_leads_to_the_same_experts(preset, federate, wire, tmp_path):
    words = "num_rounds = 1\nmin_clients = 3"
    plain, masked = preset(words).read_text(), preset(words, strategy="secagg = true").read_text()
    paths = [tmp_path / "plain.toml", tmp_path / "masked.toml"]
    paths[0].write_text(plain)
    paths[1].write_text(masked)
    assert federate(paths[0], "plain") == 0
    wire.clear()
    assert federate(paths[1], "masked") == 0
    a, b = experts(tmp_path / "plain", paths[0]), experts(tmp_path / "masked", paths[1])
    assert all(torch.allclose(a[n], b[n], atol=1e-4) for n in a)
    trained = [m for m in wire if m.metadata.message_type == "train" and m.has_content()]
    replies = [m for m in trained if m.metadata.reply_to_message_id]
    assert replies and not any(list(r) for m in replies for r in m.content.array_records.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        'name = "fedprox"\nproximal_mu = 0.1',
        'name = "fedmedian"',
        'name = "trimmed"\ntrim = 0.4',
        'name = "krum"',
        "dp_clip = 1.0\ndp_noise = 0.01",
        "momentum = 0.5",
    ],
)
def test_every_strategy_runs_and_moves_the_experts(preset, federate, tmp_path, strategy):
    path = preset("num_rounds = 1\nmin_clients = 3", strategy=strategy)
    assert federate(path) == 0
    first = result(tmp_path / "out")["rounds"][0]
    assert first["trained"] == [0, 1, 2] and not first["failures"]
    start = read_experiment(str(path), "paper", 0)
    before = start.select_shared(start.build_model())
    after = experts(tmp_path / "out", path)
    assert after.keys() == before.keys()
    assert all(torch.isfinite(t).all() for t in after.values())
    assert any(not torch.equal(after[n], before[n]) for n in before)


# --- stopping and resuming -----------------------------------------------------------------------


@pytest.mark.slow
def test_resuming_after_a_round_or_a_kill_within_one_equals_never_stopping(
    preset, federate, trained, tmp_path, monkeypatch, capsys
):
    path = preset("num_rounds = 2")
    trained(path, "whole")
    train = Hospital.train
    for place in ((0, 2), (1, 2)):

        def killed(self, shared, now, place=place, **options):
            if (self.client, now) == place:
                raise KeyboardInterrupt
            return train(self, shared, now, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Hospital, "train", killed)
            assert federate(path, "stopped", *(["--resume"] if place[0] else [])) == 130
    assert federate(path, "stopped") == 2
    assert "--resume continues" in capsys.readouterr().err
    assert federate(path, "stopped", "--resume") == 0
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_other_settings_and_damaged_states_do_not_resume(
    preset, federate, trained, tmp_path, capsys
):
    trained(preset())
    assert federate(preset("calm_rounds = 1\nnum_rounds = 2"), "out", "--resume") == 2
    assert "written with other settings" in capsys.readouterr().err
    (tmp_path / "out" / "mixture" / STATE).write_bytes(b"nothing")
    assert federate(preset("num_rounds = 2"), "out", "--resume") == 2
    assert "is damaged" in capsys.readouterr().err


# --- clients that fail ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crash", "RuntimeError: the power went"),
        ("nan", "client 1 sent 'experts.0.backbone.conv1.weight' with values that are not finite"),
        ("shape", r"of shape (1,)"),
        ("weight", "client 1 reports 1000000 scans, it registered with 8"),
        ("personal", "something personal was about to leave"),
    ],
)
def test_a_failing_client_is_recorded_and_the_others_continue(
    preset, federate, tmp_path, monkeypatch, kind, message
):
    train = Hospital.train

    def failing(self, shared, now, **options):
        new, figures = train(self, shared, now, **options)
        if self.client != 1:
            return new, figures
        if kind == "crash":
            raise RuntimeError("the power went")
        name = "experts.0.backbone.conv1.weight"
        if kind == "nan":
            new[name] = new[name] * float("nan")
        if kind == "shape":
            new[name] = torch.zeros(1)
        if kind == "weight":
            figures["num-examples"] = 1_000_000
        if kind == "personal":
            new["attention.0.0.weight"] = torch.zeros(1)
        return new, figures

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(preset()) == 0
    first = result(tmp_path / "out")["rounds"][0]
    assert first["trained"] == [0, 2] and list(first["failures"]) == ["1"]
    assert message in first["failures"]["1"]
    assert set(first["clients"]) == {"0", "2"}


def test_rounds_without_enough_clients_are_skipped_and_three_end_the_run(
    preset, federate, tmp_path, monkeypatch, capsys
):
    def failing(self, shared, now, **options):
        raise RuntimeError("down")

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(preset("num_rounds = 9")) == 1
    errors = capsys.readouterr().err
    assert "3 rounds in a row were skipped: 0 clients answered of the 2" in errors
    assert errors.count("skipped: 0 clients") == 4


@pytest.mark.slow
def test_a_skipped_round_is_reported_by_the_exit_code(preset, federate, monkeypatch, capsys):
    train = Hospital.train

    def failing(self, shared, now, **options):
        if now == 1:
            raise RuntimeError("down")
        return train(self, shared, now, **options)

    monkeypatch.setattr(Hospital, "train", failing)
    assert federate(preset("num_rounds = 2")) == 1
    errors = capsys.readouterr().err
    assert "error: skipped rounds: 1 of mixture; all others were aggregated" in errors


@pytest.mark.slow
def test_a_client_that_lost_its_attention_does_not_silently_start_anew(
    preset, federate, trained, tmp_path
):
    trained(preset())
    for path in (tmp_path / "out" / "clients").rglob("client-001/*"):
        path.unlink()
    assert federate(preset("num_rounds = 2"), "out", "--resume") == 0
    second = result(tmp_path / "out")["rounds"][1]
    assert (
        "client 1 trained before, but its attention is not on its disk" in second["failures"]["1"]
    )
    assert second["trained"] == [0, 2]


@pytest.fixture
def settings(world, tmp_path, preset) -> dict:
    places = {
        "data": str(world / "data"),
        "cache": str(world / "cache"),
        "state": str(tmp_path),
        "phase": "mixture",
    }
    return {"preset": str(preset()), "protocol": "paper", "seed": 0, **places}


def test_clients_of_another_experiment_or_with_a_taken_number_are_refused(settings, capsys):
    client_app.clear_cache()
    experiment = read_experiment(settings["preset"], "paper", 0)
    other = InProcessGrid(client_app.app, {**settings, "seed": 1}, [{"partition-id": 0}])
    assert ClientRegistry(other, experiment, LiveTable()).present(0) == {}
    assert "client 0 has another preset, protocol or seed" in capsys.readouterr().err
    nodes = [{"partition-id": client} for client in (1, 1, 9)]
    registry = ClientRegistry(
        InProcessGrid(client_app.app, settings, nodes), experiment, LiveTable()
    )
    assert registry.present(0) == {1: 1}
    errors = capsys.readouterr().err
    assert "node 2 takes no part: client 1 is there already" in errors
    assert "node 3 takes no part" in errors
    refusals = registry.take_refusals()
    assert "node 2 takes no part: client 1 is there already" in refusals and len(refusals) == 2
    assert registry.take_refusals() == []  # each is put on the record once


def test_a_hospital_s_policy_has_the_last_word(settings, tmp_path):
    (tmp_path / "policy.toml").write_text('allow = ["nothing.*"]')
    client_app.clear_cache()
    node = {"partition-id": 0, "policy": str(tmp_path / "policy.toml")}
    grid = InProcessGrid(client_app.app, settings, [node])
    experiment = read_experiment(settings["preset"], "paper", 0)
    asked = {
        "arrays": pack(experiment.select_shared(experiment.build_model())),
        "config": ConfigRecord({"round": 1, "best": 0, "joined": [], "from": 0.0, "to": 1.0}),
    }
    reply = grid.send_and_receive([Message(RecordDict(asked), 1, "train")])[0]
    assert reply.has_error() and "does not allow 'experts." in reply.error.reason


def test_too_many_hospitals_for_the_scans(preset, federate, capsys):
    assert federate(preset(clients=20)) == 1
    errors = capsys.readouterr().err
    assert "takes no part" in errors and "its own log says which" in errors
    assert "client 0 has 1 training scans of the 2" in errors


def test_a_client_with_fewer_scans_than_a_batch_takes_no_part_and_is_on_the_record(
    preset, federate, tmp_path, capsys
):
    path = preset("num_rounds = 3")
    path.write_text(path.read_text().replace("batch_size = 8", "batch_size = 9"))
    assert federate(path) == 1
    errors = capsys.readouterr().err
    assert "client 0: 8 training scans are fewer than a batch of 9" in errors
    lines = (tmp_path / "out" / "mixture" / "log.jsonl").read_text().splitlines()
    refused = [reason for line in lines for reason in json.loads(line)["refused"]]
    assert len(set(refused)) >= 3 and all("takes no part" in reason for reason in refused)
