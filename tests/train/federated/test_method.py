"""Federations with other settings than the paper's: phases, sharing, strategies, scans."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core import checkpoint, interval
from core.interval import IntervalConfig
from core.moe import is_personal
from core.pipeline import build
from core.scan import to_uint8
from core.weights import PARTS, load
from tests.networks import TWO_HOSPITALS
from train.__main__ import main
from train.calibration.thresholds import store_thresholds
from train.config import read_preset
from train.data.corpus import load_corpus
from train.federated import export
from train.federated.client import adversarial_cache
from train.federated.client.adversarial_cache import attack_training_scans
from train.federated.client.batch_norm import (
    measure_statistics,
    merge_statistics,
    select_statistics,
)
from train.federated.client.hospital import Hospital
from train.federated.client.local_state import ClientState
from train.federated.client.purify_training_scans import purify_training_scans
from train.federated.experiment import Experiment, read_experiment
from train.federated.export import _find_certified
from train.federated.recalibrate import calibrate_own
from train.federated.server.adv_propagation import propagate_shares
from train.federated.server.run_state import RESULT, STATE, RunState
from train.federated.shared_parameters import COUNTER, STATISTICS
from train.federated.state_file import StateError, read
from train.progress import Progress
from train.recipes import FILES, build_network, find_phase

WHOLE = 'extends = "smoke"' + TWO_HOSPITALS


def result(out: Path, phase: str = "mixture") -> dict:
    return json.loads((out / phase / RESULT).read_text(encoding="utf-8"))


def clients(out: Path, name: str) -> list[Path]:
    return sorted((out / "clients").rglob(f"client-*/{name}"))


def _places(preset: Path, states: Path, world: Path, weights: Path) -> list[str]:
    """Return the options of `train export`."""
    given = {"preset": preset, "protocol": "paper", "state": states, "out": weights,
             "data": world / "data", "cache": world / "cache"}  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def corpus(world: Path):
    return load_corpus("paper", world / "data", world / "cache", world / "manifests")


# --- phases --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_phases_are_learned_together_and_each_hospital_ends_with_a_whole_system(
    federate, world, tmp_path, corpus, capsys, monkeypatch
):
    path = tmp_path / "whole.toml"
    path.write_text(WHOLE)
    assert federate(path, "out", "all") == 0
    for phase in FILES:
        facts = result(tmp_path / "out", phase)
        assert facts["phase"] == phase and set(facts["final"]["clients"]) == {"0", "1"}
        assert not facts["final"]["failures"]
    experiment = read_experiment(str(path), "paper", 0)
    hospitals = [
        Hospital(experiment, corpus, client, tmp_path / "out" / "clients") for client in (0, 1)
    ]
    first, second = (hospital.build_system().state_dict() for hospital in hospitals)
    fresh = build(experiment.preset.system).state_dict()
    for file, place in PARTS.items():
        if file not in FILES.values():
            continue
        own = (*STATISTICS, COUNTER)
        names = [n for n in first if n.startswith(f"{place}.") and not n.endswith(own)]
        assert any(not torch.equal(first[n], fresh[n]) for n in names), file
        same = {n for n in names if torch.equal(first[n], second[n])}
        assert {n for n in names if not is_personal(n)} <= same, file
    weights, own = tmp_path / "weights", (*STATISTICS, COUNTER)
    assert main(["export", *_places(path, tmp_path / "out/clients", world, weights)]) == 0
    for number, trained in ((1, first), (2, second)):
        system = load(weights, "cpu", hospital=number)
        assert system.info["hospitals"] == [1, 2]
        kept = system.state_dict()
        for name in (n for n in trained if n.startswith("classifier.model.")):
            is_exact = is_personal(name) or name.endswith(own)
            wanted = trained[name] if is_exact else trained[name].half().float()
            assert torch.equal(kept[name], wanted), name
    manifest = (weights / checkpoint.MANIFEST).read_bytes()
    apart = tmp_path / "apart"
    places = _places(path, tmp_path / "out/clients", world, apart)
    for client in (1, 0):  # each writes its own, beside what is there
        assert main(["export", *places, "--client", str(client)]) == 0
    assert (apart / checkpoint.MANIFEST).read_bytes() == manifest
    for file in FILES.values():
        names = checkpoint.load(weights / file).state_dict
        assert names and not any(is_personal(n) or n.endswith(own) for n in names)
    _merge_norms(path, world, tmp_path, first, second, capsys)
    _go_on(path, world, tmp_path, federate, monkeypatch, capsys)
    _calibrate_anew(path, world, weights, tmp_path / "anew", capsys)


def _merge_norms(path: Path, world: Path, folder: Path, first, second, capsys) -> None:
    """Export with merged statistics: shared, between those of the hospitals, in no own file."""
    out = folder / "merged"
    places = _places(path, folder / "out/clients", world, out)
    with pytest.raises(SystemExit):
        main(["export", *places, "--merge-norm", "1", "--client", "1"])
    assert "for all hospitals, each with its own scans" in capsys.readouterr().err
    assert main(["export", *places, "--merge-norm", "1"]) == 0
    systems = [load(out, "cpu", hospital=number).state_dict() for number in (1, 2)]
    names = [n for n in first if n.startswith("classifier.") and n.endswith("running_mean")]
    assert names and any(not torch.equal(first[n], second[n]) for n in names)
    for name in names:
        assert torch.equal(systems[0][name], systems[1][name])
        low, high = (
            torch.minimum(first[name], second[name]),
            torch.maximum(first[name], second[name]),
        )
        assert ((systems[0][name] >= low - 1e-2) & (systems[0][name] <= high + 1e-2)).all()
    held = checkpoint.load(out / "hospital-01.safetensors").state_dict
    assert not any(n.endswith(STATISTICS) for n in held)
    _mix_norms(path, world, folder, first, systems[0], capsys)


def _mix_norms(path: Path, world: Path, folder: Path, first, merged, capsys) -> None:
    """Measure each hospital's statistics anew for exported weights: a share is that of all."""
    found = {}
    for share in ("0", "0.25"):
        out = folder / f"mixed-{share}"
        places = _places(path, folder / "merged", world, out)
        places[places.index("--state")] = "--recalibrate"
        assert main(["export", *places, "--merge-norm", share, "--default", "2"]) == 0
        system = load(out, "cpu", hospital=1)
        of_default = load(out, "cpu")  # reads scans from elsewhere: with the statistics of all
        assert of_default.info["hospital"] == 2
        of_default = of_default.state_dict()
        found[share] = system.state_dict()
        held = checkpoint.load(out / "hospital-01.safetensors").state_dict
        for file in ("classifier.safetensors", "plain.safetensors"):
            names = [n for n in checkpoint.load(out / file).state_dict if n.endswith(STATISTICS)]
            assert not names and any(
                n.startswith(PARTS[file]) and n.endswith(STATISTICS) for n in held
            )
    names = [n for n in first if n.startswith("classifier.") and n.endswith("running_mean")]
    for name in names:  # the merged weights are those of the states, in half precision
        torch.testing.assert_close(found["0"][name], first[name], atol=0.02, rtol=0.02)
        between = 0.75 * found["0"][name] + 0.25 * merged[name]
        torch.testing.assert_close(found["0.25"][name], between, atol=0.02, rtol=0.02)
        torch.testing.assert_close(of_default[name], merged[name], atol=0.02, rtol=0.02)
    with pytest.raises(SystemExit):
        main(["export", *places, "--merge-norm", "1.5"])
    assert "--merge-norm must be in [0, 1], got 1.5" in capsys.readouterr().err
    kept = {f.name: f.read_bytes() for f in (*out.iterdir(), *(folder / "merged").iterdir())}
    places[places.index("--recalibrate") + 1] = str(out)
    assert main(["export", *places, "--merge-norm", "1"]) == 2
    assert "holds the weights to recalibrate: name another --out" in capsys.readouterr().err
    one = _places(path, folder / "out/clients", world, folder / "merged")
    assert main(["export", *one, "--client", "0"]) == 2
    assert "was written with another --merge-norm" in capsys.readouterr().err
    assert kept == {
        f.name: f.read_bytes() for f in (*out.iterdir(), *(folder / "merged").iterdir())
    }
    assert main(["export", *places, "--default", "7"]) == 2
    assert "no hospital 7 that could read" in capsys.readouterr().err


def _go_on(path: Path, world: Path, folder: Path, federate, monkeypatch, capsys) -> None:
    """Train the mixture further from weights with merged statistics: the other parts are kept."""
    start, out = folder / "merged", folder / "further"
    assert federate(path, "on", "mixture", "--start", str(start)) == 0
    places = _places(path, folder / "on/clients", world, out)
    assert main(["export", *places, "--merge-norm", "1"]) == 2
    assert "has no finished 'plain'" in capsys.readouterr().err
    seen = []

    def calibrate(system, *given) -> None:
        calibrate_own(system, *given)
        seen.append({n: t.clone() for n, t in system.state_dict().items()})

    places += ["--start", str(start), "--default", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(export, "calibrate_own", calibrate)
        assert main(["export", *places, "--merge-norm", "1"]) == 0
    before, after = (checkpoint.read_manifest(f) for f in (start, out))
    for file in FILES.values():
        assert (before[file] == after[file]) == (file != FILES["mixture"])
    for number, calibrated in enumerate(seen, 1):  # nothing was rounded after the calibration
        stored = load(out, "cpu", hospital=number).state_dict()
        assert all(torch.equal(stored[n], t) for n, t in calibrated.items() if COUNTER not in n)
    assert load(out, "cpu").info["hospital"] == 2
    for option, value, sentence in (
        ("--default", "5", "there is no hospital 5"),
        ("--out", str(start), "holds the weights to start from"),
    ):
        assert main(["export", *places, option, value]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["export", *places[:-2], "--merge-norm", "1"]) == 0  # it still reads by default
    assert load(out, "cpu").info["hospital"] == 2
    with pytest.raises(SystemExit):
        main(["export", *places, "--certified"])


def _calibrate_anew(path: Path, world: Path, weights: Path, out: Path, capsys) -> None:
    """Recalibrate: only the hospitals' files differ; a preset of another partition is refused."""
    places = _places(path, weights, world, out)
    places[places.index("--state")] = "--recalibrate"
    other = path.with_name("other.toml")
    other.write_text(path.read_text().replace("num_clients = 2", "num_clients = 3"))
    assert main(["export", *(str(other) if p == str(path) else p for p in places)]) == 2
    assert "has another federated, preset." in capsys.readouterr().err and not out.exists()
    path.write_text(path.read_text().replace("hidden_steps = 2", "hidden_steps = 4"))
    assert main(["export", *places, "--client", "1"]) == 0
    with pytest.raises(checkpoint.WeightsError):
        load(out, "cpu", hospital=1)  # its turn comes
    assert main(["export", *places]) == 0
    same = [(f.read_bytes() == (out / f.name).read_bytes()) for f in weights.glob("*.safetensors")]
    assert same.count(False) == 2
    system = load(out, "cpu", hospital=2)
    assert system.info["hospitals"] == [1, 2]
    assert system.info["validation"]["fused_largest_share"] > 0
    assert main(["export", *places, "--seed", "1"]) == 2
    assert "has another seed." in capsys.readouterr().err


@pytest.mark.slow
def test_the_certified_classifier_is_learned_together_and_added_to_weights(
    federate, world, tmp_path, capsys
):
    path = tmp_path / "beside.toml"
    text = 'extends = "smoke"\n[federated]\nnum_rounds = 2\nlocal_epochs = 1\n'
    path.write_text(text + "[federated.partition]\nnum_clients = 2\nmin_scans = 2\n")
    weights, states = tmp_path / "weights", tmp_path / "out/clients"
    places = [*_places(path, states, world, weights), "--certified"]
    assert main(["export", *places]) == 2
    assert "client 0 has no finished 'certified'" in capsys.readouterr().err
    own = tmp_path / "own.toml"
    own.write_text(path.read_text().replace("[federated]", '[federated]\nbatch_norm = "local"'))
    assert main(["export", *_places(own, states, world, weights), "--certified"]) == 2
    assert "the clients have no common certified classifier" in capsys.readouterr().err
    assert federate(path, "out", "certified") == 0
    assert result(tmp_path / "out", "certified")["best_round"]
    assert main(["export", *places]) == 0
    first = (weights / interval.FILE).read_bytes()
    classifier = interval.load(weights)
    fresh = build_network(find_phase("certified"), read_preset(str(path)), 0).state_dict()
    assert any(
        not torch.equal(t, fresh[n].half().double()) for n, t in classifier.state_dict().items()
    )
    experiment = read_experiment(str(path), "paper", 0, "certified")
    own = [ClientState(states, experiment, c).read_finished(experiment) for c in (0, 1)]
    merged = merge_statistics([select_statistics(state) for state in own])
    assert not torch.equal(own[0]["norms.0.running_mean"], own[1]["norms.0.running_mean"])
    for name, tensor in merged.items():
        stored = checkpoint.halve(name, tensor).double()
        assert torch.equal(classifier.state_dict()[name], stored)
    assert main(["export", *places, "--client", "1"]) == 0  # the same whoever exports it
    assert (weights / interval.FILE).read_bytes() == first
    assert list(checkpoint.read_manifest(weights)) == [interval.FILE]
    # a hospital that holds its own state alone exports the rest
    alone = tmp_path / "alone"
    keep_own(states, alone)
    log = Progress("export", tmp_path / "log.jsonl")
    capsys.readouterr()
    assert _find_certified(experiment, alone, 1, log) is None
    assert "without the certified classifier, which needs all state folders: client 0" in (
        capsys.readouterr().err
    )
    assert _find_certified(experiment, states, 1, log) is not None
    assert _find_certified(experiment, tmp_path / "nowhere", 1, log) is None


def keep_own(states: Path, alone: Path) -> None:
    """Copy the state of client 1 without client 0's."""
    shutil.copytree(states, alone)
    for folder in alone.rglob("client-000"):
        shutil.rmtree(folder)


@pytest.mark.slow
def test_statistics_that_hospitals_share_need_no_merging(federate, world, tmp_path, capsys):
    path = tmp_path / "shared.toml"
    text = 'extends = "smoke"\n[federated]\nnum_rounds = 1\nlocal_epochs = 1\n'
    text += 'batch_norm = "shared"\n[federated.partition]\nnum_clients = 2\nmin_scans = 2\n'
    path.write_text(text)
    assert federate(path, "out", "certified") == 0
    alone = tmp_path / "alone"
    keep_own(tmp_path / "out/clients", alone)
    places = _places(path, alone, world, tmp_path / "weights")
    assert main(["export", *places, "--client", "1", "--certified"]) == 0
    interval.load(tmp_path / "weights")
    path.write_text(text.replace('"shared"', '"silo"\nshare = "none"'))
    assert main(["export", *places, "--client", "1", "--certified"]) == 2
    assert "the clients have no common certified classifier" in capsys.readouterr().err


def test_what_is_beside_the_system_leaves_its_phases_names_alone():
    """States written before there was a certified classifier can be resumed."""
    preset = read_preset("sites+go-on")
    other = replace(preset, certified=replace(preset.certified, shape=IntervalConfig(side=28)))
    rounds = replace(other.federated.rounds, certified=7)
    other = replace(other, federated=replace(other.federated, rounds=rounds))
    for phase in FILES:
        pair = [Experiment(p, "patients", 0, phase) for p in (preset, other)]
        assert pair[0].digest == pair[1].digest and pair[0].family == pair[1].family
    pair = [Experiment(p, "patients", 0, "certified") for p in (preset, other)]
    assert pair[0].digest != pair[1].digest


def test_a_hospital_that_has_not_finished_exports_nothing(preset, world, tmp_path, capsys):
    assert main(["export", *_places(preset(), tmp_path, world, tmp_path / "weights")]) == 2
    error = capsys.readouterr().err
    assert "error: client 0 has no finished 'mixture': train that phase first" in error
    assert not list((tmp_path / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("words", [[], ["--state", "a", "--recalibrate", "b"]])
def test_weights_are_made_of_states_or_of_weights(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["export", "--out", str(tmp_path), *words])
    assert stop.value.code == 2
    assert "--recalibrate" in capsys.readouterr().err


def test_a_phase_without_what_it_learns_from_says_which(federate, tmp_path):
    path = tmp_path / "part.toml"
    path.write_text('extends = "smoke"\n[federated.partition]\nnum_clients = 2\nmin_scans = 2\n')
    assert federate(path, "out", "detector") == 1
    first = result(tmp_path / "out", "detector")["rounds"][0]
    assert "client 0 has no finished 'mixture'" in first["failures"]["0"]


# --- what travels --------------------------------------------------------------------------------


def test_local_training_sends_nothing_and_each_keeps_its_own(federate, preset, tmp_path):
    path = preset('num_rounds = 2\nshare = "none"')
    assert federate(path) == 0
    digest = result(tmp_path / "out")["digest"]
    states = [read(p, digest)[0] for p in clients(tmp_path / "out", "mixture.safetensors")]
    name = "experts.0.backbone.conv1.weight"
    assert len(states) == 3 and not torch.equal(states[0][name], states[1][name])
    server, _ = read(tmp_path / "out/mixture/server.safetensors", digest)
    assert not server


def test_with_all_shared_every_hospital_has_the_same_network(federate, preset, tmp_path):
    assert federate(preset('share = "all"\nnum_rounds = 1')) == 0
    digest = result(tmp_path / "out")["digest"]
    states = [read(p, digest)[0] for p in clients(tmp_path / "out", "mixture.safetensors")]
    names = [n for n in states[0] if not n.endswith((*STATISTICS, COUNTER))]
    assert any(is_personal(n) for n in names)
    assert all(torch.equal(states[0][n], states[1][n]) for n in names)


@pytest.mark.slow
def test_with_momentum_resuming_equals_never_stopping(federate, preset, tmp_path, monkeypatch):
    path = preset("num_rounds = 2", strategy="momentum = 0.5\naverage = 0.75")
    assert federate(path, "whole") == 0
    steps = []
    step = RunState.apply_momentum

    def watching(self, mean):
        old, new = self.shared, step(self, mean)
        steps.append({n: (mean[n] - t, new[n] - t) for n, t in old.items()})
        if len(self.history) == 1 and len(steps) == 2:
            raise KeyboardInterrupt
        return new

    monkeypatch.setattr(RunState, "apply_momentum", watching)
    assert federate(path, "stopped") == 130
    assert federate(path, "stopped", "--resume") == 0
    first, second = steps[0], steps[2]
    for name, (mean, moved) in second.items():
        assert torch.allclose(first[name][1], first[name][0])
        assert torch.allclose(moved, mean + 0.5 * first[name][1], atol=1e-7)
    files = [tmp_path / out / "mixture" / STATE for out in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_with_an_average_the_mean_over_rounds_is_what_is_kept(federate, preset, tmp_path):
    path = preset("num_rounds = 1", strategy="average = 0.75")
    experiment = read_experiment(str(path), "paper", 0)
    assert federate(path) == 0
    first, _ = read(tmp_path / "out/mixture/server.safetensors", experiment.digest)
    names = experiment.select_shared(experiment.build_model())
    for n in names:  # no share of the fresh numbers that it began from
        assert torch.equal(first[f"mean/{n}"], first[f"last/{n}"])
    path = preset("num_rounds = 2", strategy="average = 0.75")
    assert federate(path, "out", "--resume") == 0
    server, _ = read(tmp_path / "out/mixture/server.safetensors", experiment.digest)
    for n in names:
        mean = 0.75 * first[f"mean/{n}"] + 0.25 * server[f"last/{n}"]
        torch.testing.assert_close(server[f"mean/{n}"], mean)
    best = result(tmp_path / "out")["best_round"]
    kept = {1: first, 2: server}[best]
    for path in clients(tmp_path / "out", "mixture.safetensors"):
        own = read(path, experiment.digest)[0]
        assert all(torch.equal(own[n], kept[f"mean/{n}"]) for n in names)


def test_averaging_rounds_does_not_change_the_experiment(preset):
    """Averaging is a setting of the server alone."""
    digests = {
        read_experiment(str(preset("num_rounds = 1", strategy=s)), "paper", 0).digest
        for s in ("", "average = 0.75", "equal = true")
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_the_best_round_is_what_each_hospital_keeps(trained, preset, tmp_path):
    trained(preset("num_rounds = 2"))
    facts = result(tmp_path / "out")
    best = facts["rounds"][facts["best_round"] - 1]
    assert facts["final"]["summary"] == best["summary"]


def test_statistics_of_averaged_weights_are_those_of_the_client_s_scans(corpus):
    model = build_network(find_phase("plain"), read_preset("smoke"), 0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    measure_statistics(model, corpus.train, torch.device("cpu"))
    after = model.state_dict()
    moved = {n for n in after if not torch.equal(after[n], before[n])}
    assert moved == {n for n in after if n.split(".")[-1] in (*STATISTICS, COUNTER)}
    x, _ = corpus.train.all(torch.device("cpu"))
    first, maps = model.experts[0].backbone.bn1, []
    first.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    with torch.no_grad():
        model.eval()(x)
    assert torch.allclose(first.running_mean, maps[0].mean((0, 2, 3)), atol=1e-4)
    assert first.momentum == 0.1


def test_fedem_weighs_shared_experts_by_each_client_s_own_scans(federate, preset, tmp_path):
    path = preset("num_rounds = 2\nlate_clients = [2]\njoin_round = 2")
    assert federate(f"{path}+em") == 0
    facts = result(tmp_path / "out")
    assert facts["preset"] == "tiny+em" and facts["rounds"][1]["trained"] == [0, 1, 2]
    states = [read(p, facts["digest"])[0] for p in clients(tmp_path / "out", "mixture.safetensors")]
    weights = [s["attention.log_weights"].exp() for s in states]
    assert all(float(w.sum()) == pytest.approx(1, abs=1e-5) for w in weights)
    assert not torch.allclose(weights[0], weights[1], atol=1e-6)
    name = "experts.0.head.1.weight"
    assert torch.equal(states[0][name], states[1][name])


# --- attacks in training -------------------------------------------------------------------------


def test_shares_are_propagated_to_clients_with_resources():
    counts = {0: 100, 1: 100, 2: 200}
    assert propagate_shares(0.5, [1.0] * 3, counts) == {0: 0.5, 1: 0.5, 2: 0.5}
    found = propagate_shares(0.5, [0.1, 1.0, 1.0], counts)
    assert found[0] == 0.1 and found[1] == found[2] == pytest.approx((200 - 10) / 300)
    total = sum(found[c] * n for c, n in counts.items())
    assert total == pytest.approx(200)
    assert propagate_shares(0.9, [0.1, 0.2, 0.3], counts) == {0: 0.1, 1: 0.2, 2: 0.3}
    cascade = propagate_shares(0.5, [0.0, 0.6, 1.0], counts)
    assert cascade == {0: 0.0, 1: 0.6, 2: pytest.approx(0.7)}


def test_each_client_receives_its_share(federate, preset, tmp_path, monkeypatch):
    heard = {}
    train = Hospital.train

    def listening(self, shared, now, **options):
        heard[self.client] = options["adv_share"]
        return train(self, shared, now, **options)

    monkeypatch.setattr(Hospital, "train", listening)
    assert federate(preset("num_rounds = 1\nresources = [0.25, 1.0, 1.0]")) == 0
    assert heard[0] == 0.25 and heard[1] == heard[2] == pytest.approx(1.0)  # the preset's is .75


@pytest.mark.slow
def test_attacked_scans_stay_until_they_are_refreshed(federate, preset, tmp_path, monkeypatch):
    made = []
    attack = adversarial_cache._attack_rows

    def counting(model, data, rows, config):
        made.append(len(rows))
        return attack(model, data, rows, config)

    monkeypatch.setattr(adversarial_cache, "_attack_rows", counting)
    path = preset("num_rounds = 4\ncalm_rounds = 1\nrefresh_every = 2\nmin_clients = 1", clients=1)
    assert federate(path) == 0
    assert made == [18] * 2  # of its 24 scans, in rounds 2 and 4
    left = clients(tmp_path / "out", "mixture-attacked-*")
    assert [p.name for p in left] == ["mixture-attacked-00004.safetensors"]


def test_attacked_scans_lie_in_the_ball_and_the_rest_is_untouched(corpus, tmp_path):
    preset = read_preset("smoke")
    model = build_network(find_phase("mixture"), preset, 0)
    loss, data = preset.classifier.loss, corpus.train
    out = attack_training_scans(model, data, loss, 3, tmp_path / "a.safetensors")
    moved = np.abs(out.scans.astype(int) - data.scans.astype(int)).reshape(len(data), -1).max(1)
    assert moved.max() == int(loss.adv_eps * 255)
    assert (moved > 0).sum() == round(len(data) * (1 - loss.adv_clean))
    again = attack_training_scans(
        build_network(find_phase("mixture"), preset, 1), data, loss, 4, tmp_path / "a.safetensors"
    )
    assert np.array_equal(again.scans, out.scans)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="damaged"):
        attack_training_scans(model, data, loss, 3, tmp_path / "a.safetensors")


# --- Algorithm 3 ---------------------------------------------------------------------------------


def test_flagged_training_scans_are_purified_and_no_others(corpus):
    torch.manual_seed(0)
    system = build(read_preset("smoke").system)
    system.detector.config = replace(system.detector.config, false_alarms=0.2)
    x, _ = corpus.train.all(system.device)
    scores = torch.cat([system.score(system.detect(b)) for b in x.split(10)])
    store_thresholds(system.detector, system.config.detector.score, scores, scores + 1)
    flagged = scores > system.tau
    assert 0 < int(flagged.sum()) < len(x)
    out = purify_training_scans(corpus.train, system)
    changed = (out.scans != corpus.train.scans).reshape(len(x), -1).any(1)
    assert changed.tolist() == flagged.tolist()
    row = int(flagged.nonzero()[0])
    deep = system.t_star(scores[row : row + 1], "paper")
    pure = system.purify(x[row : row + 1], deep, [row])
    assert int(deep) >= system.config.purifier.t_min
    levels = to_uint8(pure).reshape(out.scans[row].shape).astype(int)
    assert np.abs(levels - out.scans[row]).max() <= 1  # alone and in a batch


def test_purification_without_weights_is_refused(federate, preset, capsys):
    assert federate(preset("purify = true\nnum_rounds = 1")) == 1
    assert "client 0: purify needs weights to purify with: --defence" in capsys.readouterr().err
