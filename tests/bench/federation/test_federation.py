"""The rows of `python -m bench federation` on phantoms: what they count, and that they can miss."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from bench.__main__ import main
from bench.federation import tables as federation_tables
from bench.federation.ablations import (
    alter_replies,
    compare_paired,
    make_noise,
    measure_accuracy,
    measure_batch_norm,
    measure_personal_attention,
    measure_poisoning,
)
from bench.federation.run import ROWS, select_rows
from bench.federation.scaling import (
    SCALING_CHANGES,
    are_equal,
    fit_line,
    load_shared,
    measure_overhead,
    measure_payload,
    measure_scaling,
    run_metered,
    train_plain,
)
from bench.federation.trainings import FederationFixture, Places
from core.scan import to_png
from demo.phantom import draw_phantom
from tests.networks import NETWORKS
from train import config
from train.data.source_tables import COLUMNS, IXI, TCGA
from train.data.sources import ALL_SOURCES, find_records, hash_files
from train.data.split import FOLDS, Entry, Manifest
from train.data.split_patients import find_site
from train.federated.experiment import read_experiment
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
SHORT_RUN = """
num_rounds = 2
eval_every = 1
min_clients = 2
[federated.partition]
num_clients = 3
min_scans = 2
max_scans = 40
"""


@pytest.fixture
def fixture(places: Places, monkeypatch: pytest.MonkeyPatch) -> FederationFixture:
    (places.runs / "federation-bench.toml").write_text(TINY, encoding="utf-8")
    monkeypatch.setattr(config, "PRESET_FOLDER", places.runs)  # the tiny one in place of what ships
    return FederationFixture(places, "paper", learning="paper")


def tables(rows: dict[str, Any]) -> str:
    """The documents' table of some rows."""
    machine = {"device_name": "a machine", "threads": 1}
    facts = {"machine": machine, "commit": "c" * 40, "date": "2026-01-01"}
    result = {"rows": rows, "provenance": facts, "warnings": []}
    return federation_tables.federation({"federation": result})


# --- the engine ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bare_loop_does_what_the_federation_does(fixture):
    row = measure_overhead(fixture, 1, SHORT_RUN)
    assert row["same_tensors"] and row["ratio"]["cpu"] > 0
    assert [len(times) for times in row["times"].values()] == [1, 1]
    assert "of the processor's time, medians of 1 |" in tables({"overhead": row})


@pytest.mark.slow
def test_a_loop_that_leaves_a_hospital_out_is_noticed(fixture, tmp_path):
    own = fixture.with_runs(tmp_path).build(changes=SHORT_RUN)
    whole, few = (train_plain(own.experiment, own.build_hospitals()[:n]) for n in (3, 2))
    assert whole.keys() == few.keys() and not are_equal(whole, few)
    assert not are_equal(whole, dict(list(whole.items())[1:]))


# --- clients that fail ---------------------------------------------------------------------------


@pytest.mark.slow
def test_one_client_s_answer_in_one_round_is_altered_and_no_other(fixture, tmp_path):
    sent: dict[int, dict[str, torch.Tensor]] = {}

    def remember(tensors, now):
        sent[now] = tensors
        return make_noise(tensors, now)

    runs = {}
    for name, app in (
        ("honest", alter_replies(lambda tensors, _: tensors, 1)),
        ("noisy", alter_replies(remember, 1, only=2)),
    ):
        own = fixture.with_runs(tmp_path / name).build(changes=SHORT_RUN)
        runs[name] = own.train(run=partial(engines.run_in_process, app=app))["rounds"]
    assert list(sent) == [2]
    (honest, later), (noisy, poisoned) = (runs[name] for name in ("honest", "noisy"))
    assert noisy["clients"] == honest["clients"] and poisoned["clients"] != later["clients"]
    loud, name = make_noise(sent[2], 2), "experts.0.backbone.conv1.weight"
    assert loud.keys() == sent[2].keys()
    assert 7 < (loud[name].square().mean() / sent[2][name].square().mean()).sqrt() < 13


@pytest.mark.slow
def test_a_poisoner_moves_the_mean_and_not_the_median(fixture):
    row = measure_poisoning(fixture)
    here = fixture.places.runs
    places = [(here / "learning", []), (here / "poisoned", []), (here / "poisoned", ["median"])]
    name = "experts.0.backbone.conv1.weight"
    clean, mean, median = (
        load_shared(fixture.with_runs(place).build(*methods))[name].abs().mean()
        for place, methods in places
    )
    assert mean > 1.5 * clean and median < 1.2 * clean
    figures = [run_["last"]["clean"]["mean"] for run_ in row["runs"].values()]
    assert row["lost_points"]["FedAvg"] == pytest.approx(100 * (figures[0] - figures[1]))
    assert "| poisoned, FedMedian | " in tables({"poison": row})


@pytest.mark.slow
def test_normalisation_is_shared_kept_or_measured(fixture):
    row = measure_batch_norm(fixture)
    assert list(row["runs"]) == ["shared, no momentum", "silo, no momentum", "silo", "local"]
    for run_ in row["runs"].values():
        assert run_["last"]["clean"]["worst"] <= run_["last"]["clean"]["mean"]
    here = fixture.with_runs(fixture.places.runs / "learning")
    shared, silo, local = (
        load_shared(here.build(*methods)).keys()
        for methods in (["shared-norm"], [], ["local-norm"])
    )
    assert shared > silo > local
    assert "| batch_norm | shared, no momentum " in tables({"batch_norm": row})


# --- one attention, or one each ------------------------------------------------------------------


@pytest.fixture
def by_site(fixture, brain_folder, tmp_path) -> FederationFixture:
    """Phantoms of every site and class, a third of them to train, to validate and to test."""
    root, tables = brain_folder(12), {TCGA: "", IXI: ""}
    for seed, (place, tumour) in enumerate([*product(("DU", "HT", "CS", "FG"), (0, 1)), (IXI, 0)]):
        source = IXI if place == IXI else TCGA
        (root / source).mkdir(exist_ok=True)
        for i in range(6):
            file, patient = f"{source}/{place}-{tumour}-{i}.png", f"{place}_{tumour}{i}"
            (root / file).write_bytes(to_png(draw_phantom(1000 + 6 * seed + i, tumour == 1)))
            facts = (
                f"t1,{patient},axial,0,0"
                if place == IXI
                else (f"flair,{patient},{place},0,{tumour},,9")
            )
            tables[source] += f"{file},{facts}\n"
    for source, lines in tables.items():
        (root / f"{source}.csv").write_text(f"{','.join(COLUMNS[source])}\n{lines}")
    records, seen = find_records(root, ALL_SOURCES), Counter[tuple[str, int]]()
    entries = []
    for i, (r, digest) in enumerate(zip(records, hash_files(root, records), strict=True)):
        kind = find_site(r), r.label
        facts = r.subtype, r.patient, r.sequence, r.plane
        entries.append(Entry(r.file, digest, r.source, i, FOLDS[seen[kind] % 3], *facts))
        seen[kind] += 1
    text = Manifest("patients", tuple(entries)).to_csv()
    (tmp_path / "patients.csv").write_text(text, encoding="utf-8")
    places = Places(root, tmp_path / "cache", tmp_path, tmp_path / "runs")
    return replace(fixture, places=places, learning="patients")


@pytest.mark.slow
def test_attention_of_one_s_own_is_compared_on_both_folds(by_site):
    row = measure_personal_attention(by_site, count=1)
    assert set(row["runs"]) == {"personal", "shared"} and row["seeds"] == [0]
    own, one = (row["runs"][name][0] for name in ("personal", "shared"))
    assert own["n"] == one["n"] and sum(own["n"]) == 42 and len(own["n"]) == 10
    gaps = [100 * (a - b) for a, b in zip(own["test"], one["test"], strict=True)]
    assert row["differences"]["test"]["points"] == pytest.approx(sum(gaps) / 10, abs=1e-3)
    assert row["systems"]["shared"]["test"]["worst"] == min(one["test"])
    folders = sorted(p.name for p in (by_site.places.runs / "learning").iterdir())
    assert folders == [
        "federation-bench+by-site+all-shared-patients-0",
        "federation-bench+by-site-patients-0",
    ]
    text = tables({"personal": row})
    assert "| attention personal | " in text and "| difference on test scans | " in text
    gap = 100 * (min(own["test"]) - min(one["test"]))
    assert f"on test scans, by seed: {gap:+.1f}." in text


def test_differences_are_paired_by_seed_and_client():
    own = [{"validation": [0.9, 0.5], "test": [0.9, 0.5]}] * 2
    one = [{"validation": [0.8, 0.4], "test": [0.5, 0.9]}] * 2
    found = compare_paired(own, one)
    assert found["validation"]["points"] == pytest.approx(10)
    assert found["validation"]["interval"] == pytest.approx((10, 10))
    assert found["test"]["points"] == pytest.approx(0, abs=1e-4)
    assert found["test"]["interval"] == pytest.approx((-40, 40))


def test_accuracy_is_the_share_that_is_read_right(fixture):
    scans = fixture.build(changes=SHORT_RUN).corpus.val
    found = measure_accuracy(lambda x: torch.eye(2)[[0] * len(x)], scans.pick([0, 1, 4]))
    assert found == pytest.approx(float((scans.labels[[0, 1, 4]] == 0).double().mean()))


# --- the wire ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bytes_are_counted_message_by_message(fixture, tmp_path):
    own = fixture.with_runs(tmp_path).build(changes=SCALING_CHANGES.format(clients=2))
    found = run_metered(own.build_settings())
    packed = pack(own.experiment.select_shared(own.experiment.build_model())).count_bytes()
    asked = 2 * 3
    assert found["rounds"] == 3 and found["payload_mb"] == pytest.approx(packed / 2**20)
    assert found["down"] == {"train": asked * packed, "evaluate": asked * packed,
                             "finish": 2 * packed, "query": 0}  # fmt: skip
    assert found["up"] == {"train": asked * packed, "evaluate": 0, "finish": 0, "query": 0}
    assert found["bytes"] == 3 * 2 * packed
    hospitals = own.build_hospitals()
    held = sum(p.scans.nbytes for h in hospitals for p in (h.corpus.train, h.corpus.val))
    assert found["scans_mb"] == pytest.approx(held / 2**20)
    assert found["cpu_s"] > 0 and found["wall_s"] > 0


def test_a_line_fits_what_is_linear_and_says_how_far_off_the_rest_is():
    straight = fit_line((10, 50, 100), [3 + 2 * n for n in (10, 50, 100)])
    assert straight["slope"] == pytest.approx(2) and straight["intercept"] == pytest.approx(3)
    assert straight["largest_deviation"] < 1e-9
    assert fit_line((10, 50, 100), [n**2 for n in (10, 50, 100)])["largest_deviation"] > 0.5


def test_payload_adds_up(places):
    row = measure_payload(FederationFixture(places), "smoke")
    assert list(row["phases"]) == list(FILES)
    for phase in row["phases"].values():
        assert phase["tensors"] < phase["packed"] == phase["up_per_round"]
        assert phase["down_per_round"] == 2 * phase["packed"]  # each round is validated
        assert phase["total_per_client"] == phase["packed"] * (3 * phase["rounds"] + 1)


def test_payload_is_that_of_a_client_who_is_asked_in_some_rounds(places):
    config = read_experiment("sites", "patients", 0).config
    assert config.fraction == 0.3
    mixture, *_, solved = measure_payload(FederationFixture(places))["phases"].values()
    assert mixture["up_per_round"] == pytest.approx(0.3 * mixture["packed"])
    asked, validated = 0.3 * mixture["rounds"], mixture["rounds"] // config.eval_every
    total = mixture["packed"] * (2 * asked + validated + 1)
    assert mixture["total_per_client"] == pytest.approx(total)
    assert solved["rounds"] == 1 and solved["up_per_round"] == solved["packed"]


@pytest.mark.slow
def test_each_size_is_measured_in_a_process_of_its_own(fixture):
    row = measure_scaling(fixture, (2, 3))
    assert row["clients"]["3"]["bytes"] == pytest.approx(1.5 * row["clients"]["2"]["bytes"])
    assert row["fits"]["bytes"]["largest_deviation"] < 0.01
    assert "| 3 | " in tables({"scaling": row}) and row["growth"]["scans_mb"] >= 0


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_rows_and_resumes(data, tmp_path, capsys):
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
    assert "unknown row 'speed': choose from overhead" in capsys.readouterr().err
    text = tables(first["rows"])
    assert "| payload | " in text and "| mixture | " in text


def test_rows_come_in_their_order():
    assert select_rows(["poison", "overhead"]) == ["overhead", "poison"]
    assert select_rows(None) == list(ROWS)
