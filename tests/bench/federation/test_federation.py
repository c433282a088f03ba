"""The rows of `python -m bench federation` on phantoms: what they count, and that they can miss."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from bench.__main__ import main
from bench.federation import tables as federation_tables
from bench.federation.ablations import accuracy, batch_norm, compare, personal, poison
from bench.federation.bad_clients import altered, noise
from bench.federation.faults import FAULTS, failing, faults
from bench.federation.federation_engine import bare, is_same, learned, overhead, twice
from bench.federation.federation_ground import SHORT, Ground, differing, digests
from bench.federation.run import ROWS, rows_named, run
from bench.federation.scaling import MANY, line, measure, payload, scaling
from bench.federation.trainings import Places
from bench.result_file import ResultFile
from tests.networks import NETWORKS
from train import config
from train.data.sources import SOURCES, file_sha256, find_records
from train.data.split import FOLDS, Entry, Manifest
from train.federated.runtime import run as engines
from train.federated.serialization import pack
from train.recipes import FILES

TINY = f"""{NETWORKS}
[classifier.warmup]
batch_size = 4
samples = 4
[classifier.fit]
batch_size = 4
samples = 4
[federated]
num_rounds = 1
local_epochs = 1
min_clients = 3
calm_rounds = 9
[federated.partition]
num_clients = 4
min_scans = 2
"""


@pytest.fixture
def ground(places: Places, monkeypatch: pytest.MonkeyPatch) -> Ground:
    (places.runs / "federation-bench.toml").write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(config, "PRESETS", places.runs)  # the tiny one in place of what ships
    return Ground(places, "leak-free", learning="leak-free")


def tables(rows: dict[str, Any]) -> str:
    """What the README shows of some rows."""
    machine = {"device_name": "a machine", "threads": 1}
    facts = {"machine": machine, "commit": "c" * 40, "date": "2026-01-01"}
    result = {"rows": rows, "provenance": facts, "warnings": []}
    return federation_tables.federation({"federation": result})


# --- the engine ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_run_twice_leaves_the_same_bytes(ground):
    row = twice(ground)
    assert row["met"] and not row["different"]
    assert "files the same | the same bytes | yes |" in tables({"twice": row})
    # what the server keeps, and of each client its last round and its finished network
    assert row["files"] >= 2 + 3 * 2


def test_files_are_told_by_name_and_content_and_the_log_is_out(tmp_path):
    for name, text in (("a/x", "1"), ("a/y/z", "2"), ("a/log.jsonl", "3"), ("b/x", "1")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    a, b = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert list(a) == ["x", "y/z"] and a["x"] == b["x"] != a["y/z"]
    assert differing(tmp_path / "a", tmp_path / "b") == ["y/z"]
    (tmp_path / "b/x").write_text("2")
    assert differing(tmp_path / "b", tmp_path / "a") == ["x", "y/z"]


@pytest.mark.slow
def test_the_bare_loop_does_what_the_federation_does(ground):
    row = overhead(ground, 1, SHORT)
    assert row["same_tensors"] and row["ratio"]["cpu"] > 0
    assert [len(times) for times in row["times"].values()] == [1, 1]
    assert "of the processor's time, medians of 1 |" in tables({"overhead": row})


@pytest.mark.slow
def test_a_loop_that_leaves_a_hospital_out_is_noticed(ground, tmp_path):
    own = ground.under(tmp_path).federation(changes=SHORT)
    whole, few = (bare(own.experiment, own.hospitals()[:n]) for n in (3, 2))
    assert whole.keys() == few.keys() and not is_same(whole, few)
    assert not is_same(whole, dict(list(whole.items())[1:]))


def test_without_ray_the_simulation_is_not_measured_and_is_asked_for_again(
    ground, tmp_path, monkeypatch
):
    asked = []

    def find(name: str) -> None:
        asked.append(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    store = ResultFile(tmp_path / "r.json", "federation", {}, {})
    for _ in range(2):
        run(store, ground, ["simulation"])
    row = store.content["rows"]["simulation"]
    assert row["met"] is None and row["unmeasured"] == "Ray is not installed"
    assert asked == ["ray", "ray"]
    assert "| simulation | Ray is not installed | within 1 point |  |" in tables(
        {"simulation": row}
    )


# --- clients that fail ---------------------------------------------------------------------------


@pytest.mark.slow
def test_faults_are_on_the_record(ground):
    row = faults(ground)
    assert row["met"], row
    assert row["faults"]["joins late"]["trained"] == [[0, 2], [0, 1, 2]]
    assert row["faults"]["server stopped, resumed"]["files"] >= 8
    for name in FAULTS:
        assert row["faults"][name]["trained"] == [[0, 1, 2], [0, 2]]
        assert list(row["faults"][name]["failures"]) == ["1"]
    text = tables({"faults": row})
    assert "| faults | 5 of 5 " in text and "| joins late | 0, 2, then 0, 1, 2 |" in text


@pytest.mark.slow
def test_a_client_that_does_not_fail_is_no_fault(ground):
    assert not failing(ground, lambda tensors, _: tensors, "")["met"]


@pytest.mark.slow
def test_one_client_s_answer_in_one_round_is_altered_and_no_other(ground, tmp_path):
    sent: dict[int, dict[str, torch.Tensor]] = {}

    def remember(tensors, now):
        sent[now] = tensors
        return noise(tensors, now)

    runs = {}
    for name, app in (
        ("honest", altered(lambda tensors, _: tensors, 1)),
        ("noisy", altered(remember, 1, only=2)),
    ):
        own = ground.under(tmp_path / name).federation(changes=SHORT)
        runs[name] = own.train(run=partial(engines.in_process, app=app))["rounds"]
    assert list(sent) == [2]
    (honest, later), (noisy, poisoned) = (runs[name] for name in ("honest", "noisy"))
    assert noisy["clients"] == honest["clients"] and poisoned["clients"] != later["clients"]
    loud, name = noise(sent[2], 2), "experts.0.backbone.conv1.weight"
    assert loud.keys() == sent[2].keys()
    assert 7 < (loud[name].square().mean() / sent[2][name].square().mean()).sqrt() < 13


@pytest.mark.slow
def test_a_poisoner_moves_the_mean_and_not_the_median(ground):
    row = poison(ground)
    here = ground.places.runs
    places = [(here / "learning", []), (here / "poisoned", []), (here / "poisoned", ["median"])]
    name = "experts.0.backbone.conv1.weight"
    clean, mean, median = (
        learned(ground.under(place).federation(*methods))[name].abs().mean()
        for place, methods in places
    )
    assert mean > 1.5 * clean and median < 1.2 * clean
    figures = [run_["last"]["clean"]["mean"] for run_ in row["runs"].values()]
    assert row["lost_points"]["FedAvg"] == pytest.approx(100 * (figures[0] - figures[1]))
    assert "| poisoned, FedMedian | " in tables({"poison": row})


@pytest.mark.slow
def test_normalisation_is_shared_kept_or_measured(ground):
    row = batch_norm(ground)
    assert list(row["runs"]) == ["shared, no momentum", "silo, no momentum", "silo", "local"]
    for run_ in row["runs"].values():
        assert run_["last"]["clean"]["worst"] <= run_["last"]["clean"]["mean"]
    here = ground.under(ground.places.runs / "learning")
    shared, silo, local = (
        learned(here.federation(*methods)).keys()
        for methods in (["shared-norm"], [], ["local-norm"])
    )
    assert shared > silo > local
    assert "| batch_norm | shared, no momentum " in tables({"batch_norm": row})


# --- one attention, or one each ------------------------------------------------------------------


@pytest.fixture
def two_sources(ground, brain_folder, tmp_path) -> Ground:
    """Both sources' phantoms, a third of them to train, to validate and to test."""
    root = brain_folder(9)
    records = find_records(root, list(SOURCES))
    entries = [
        Entry(r.file, digest, r.source, i, FOLDS[i % 3])
        for i, (r, digest) in enumerate(zip(records, file_sha256(root, records), strict=True))
    ]
    text = Manifest("multi-source", tuple(entries)).to_csv()
    (tmp_path / "multi-source.csv").write_text(text, encoding="utf-8")
    places = Places(root, tmp_path / "cache", tmp_path, tmp_path / "runs")
    return replace(ground, places=places, learning="multi-source")


@pytest.mark.slow
def test_attention_of_one_s_own_is_compared_on_both_folds(two_sources):
    row = personal(two_sources, count=1)
    assert set(row["runs"]) == {"personal", "shared"} and row["seeds"] == [0]
    own, one = (row["runs"][name][0] for name in ("personal", "shared"))
    assert own["n"] == one["n"] and sum(own["n"]) == 18 and len(own["n"]) == 4
    gaps = [100 * (a - b) for a, b in zip(own["test"], one["test"], strict=True)]
    assert row["differences"]["test"]["points"] == pytest.approx(sum(gaps) / 4, abs=1e-3)
    assert row["systems"]["shared"]["test"]["worst"] == min(one["test"])
    folders = sorted(p.name for p in (two_sources.places.runs / "learning").iterdir())
    assert folders == [
        "federation-bench+by-source+all-shared-multi-source-0",
        "federation-bench+by-source-multi-source-0",
    ]
    text = tables({"personal": row})
    assert "| attention personal | " in text and "| difference on test scans | " in text
    gap = 100 * (min(own["test"]) - min(one["test"]))
    assert f"on test scans, by seed: {gap:+.1f}." in text


def test_differences_are_paired_by_seed_and_client():
    own = [{"validation": [0.9, 0.5], "test": [0.9, 0.5]}] * 2
    one = [{"validation": [0.8, 0.4], "test": [0.5, 0.9]}] * 2
    found = compare(own, one)
    assert found["validation"]["points"] == pytest.approx(10)
    assert found["validation"]["interval"] == pytest.approx((10, 10))
    assert found["test"]["points"] == pytest.approx(0, abs=1e-4)
    assert found["test"]["interval"] == pytest.approx((-40, 40))


def test_accuracy_is_the_share_that_is_read_right(ground):
    scans = ground.federation(changes=SHORT).corpus.val
    found = accuracy(lambda x: torch.eye(2)[[0] * len(x)], scans.pick([0, 1, 4]))
    assert found == pytest.approx(float((scans.labels[[0, 1, 4]] == 0).double().mean()))


# --- the wire ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bytes_are_counted_message_by_message(ground, tmp_path):
    own = ground.under(tmp_path).federation(changes=MANY.format(clients=2))
    found = measure(own.settings())
    packed = pack(own.experiment.shared(own.experiment.model())).count_bytes()
    asked = 2 * 3
    assert found["rounds"] == 3 and found["payload_mb"] == pytest.approx(packed / 2**20)
    assert found["down"] == {"train": asked * packed, "evaluate": asked * packed,
                             "finish": 2 * packed, "query": 0}  # fmt: skip
    assert found["up"] == {"train": asked * packed, "evaluate": 0, "finish": 0, "query": 0}
    assert found["bytes"] == 3 * 2 * packed
    hospitals = own.hospitals()
    held = sum(p.scans.nbytes for h in hospitals for p in (h.corpus.train, h.corpus.val))
    assert found["scans_mb"] == pytest.approx(held / 2**20)
    assert found["cpu_s"] > 0 and found["wall_s"] > 0


def test_a_line_fits_what_is_linear_and_says_how_far_off_the_rest_is():
    straight = line((10, 50, 100), [3 + 2 * n for n in (10, 50, 100)])
    assert straight["slope"] == pytest.approx(2) and straight["intercept"] == pytest.approx(3)
    assert straight["largest_deviation"] < 1e-9
    assert line((10, 50, 100), [n**2 for n in (10, 50, 100)])["largest_deviation"] > 0.5


def test_payload_adds_up(places):
    row = payload(Ground(places), "smoke")
    assert list(row["phases"]) == list(FILES)
    for phase in row["phases"].values():
        assert phase["tensors"] < phase["packed"] == phase["up_per_round"]
        assert phase["down_per_round"] == 2 * phase["packed"]  # each round is validated


@pytest.mark.slow
def test_each_size_is_measured_in_a_process_of_its_own(ground):
    row = scaling(ground, (2, 3))
    assert row["clients"]["3"]["bytes"] == pytest.approx(1.5 * row["clients"]["2"]["bytes"])
    assert row["fits"]["bytes"]["largest_deviation"] < 0.01
    assert "| 3 | " in tables({"scaling": row}) and row["growth"]["scans_mb"] >= 0


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_rows_and_goes_on(data, tmp_path, capsys):
    out = tmp_path / "federation.json"
    words = ["federation", "--data", str(data[0]), "--manifests", str(data[1]), "--threads", "1"]
    words += ["--out", str(out), "--cache", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main([*words, "--rows", "payload"]) == 0
    first = json.loads(out.read_text())
    assert list(first["rows"]) == ["payload"]
    assert main([*words, "--rows", "payload"]) == 0
    assert json.loads(out.read_text())["rows"] == first["rows"]
    assert "payload: kept from" in capsys.readouterr().err
    assert main([*words, "--rows", "speed"]) == 2
    assert "unknown row 'speed': choose from twice" in capsys.readouterr().err
    text = tables(first["rows"])
    assert "| payload | " in text and "| mixture | " in text


def test_rows_come_in_their_order():
    assert rows_named(["poison", "twice"]) == ["twice", "poison"]
    assert rows_named(None) == list(ROWS)
