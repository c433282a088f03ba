"""Tables I and II on phantoms: every method trained and attacked on the same clients' scans."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("flwr", reason="the extra 'federated' is not installed")

from bench.data import hospital_test_scans
from bench.federation import comparison
from bench.federation.methods import METHODS, TABLES, Table, preset_of, select_methods, sort_rows
from bench.federation.trainings import Places, select_settings
from bench.result_file import ResultFile
from bench.robustness.attacks import CLASSIFIER, DEFENCE, Attack
from bench.robustness.transfer import ClientModel
from core.attacks import PGD
from tests.networks import TWO_HOSPITALS
from train.calibration import fusion
from train.config import read_preset
from train.data.corpus import load_corpus
from train.data.dataset import ScanDataset
from train.data.partition import select_client_corpus
from train.federated.experiment import read_experiment
from train.federated_config import PhaseRounds

TINY = (
    """
extends = "smoke"
[system.moe]
channels = [8, 8, 8, 8]"""
    + TWO_HOSPITALS
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    path = tmp_path_factory.mktemp("presets") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    known = TABLES["2-br35h"]
    whole = Attack("A3-lite", "", "", DEFENCE, lambda _: PGD(steps=2))
    paper = Attack("A0", "", "the paper's", CLASSIFIER, lambda _: PGD(steps=2))
    attacks = (known.attacks[0], paper, whole)
    return Table(
        "phantoms",
        "paper",
        "ResNet-18",
        {"reduced": str(path)},
        (),
        {"reduced": "one-expert-112"},
        attacks,
        {},
    )


@pytest.fixture(scope="module")
def corpus(places: Places):
    return load_corpus("paper", places.data, places.cache, places.manifests)


def run(table, corpus, places, path, methods, **options):
    store = ResultFile(path, "tables", {"a": 1}, {"machine": {"device_name": "x", "threads": 1}})
    limits = {"seed": 0, "limit": 0, "lite_limit": 2, "evasion_limit": 2} | options
    comparison.measure(store, table, "reduced", methods, corpus, places, **limits)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("setting", ["reduced", "paper"])
def test_every_method_has_a_preset_that_says_what_it_is(name, setting):
    presets = {m.name: read_preset(preset_of(TABLES[name], setting, m)) for m in METHODS}
    share = {name: p.federated.share for name, p in presets.items()}
    assert {n for n, s in share.items() if s == "none"} == {"Local", "Local Adv."}
    assert {n for n, s in share.items() if s == "all"} == {"FedAvg", "FAT", "one attention"}
    learned = {n for n, p in presets.items() if p.classifier.loss.adv_eps}
    assert learned == {m.name for m in METHODS} - {"FedAvg", "Local", "FedEM"}
    assert {n for n, p in presets.items() if p.system.moe.gate == "client"} == {"FedEM", "pFedDef"}
    experts = {n: len(p.system.moe.sides) for n, p in presets.items()}
    assert {n for n, k in experts.items() if k == 1} == {"FedAvg", "Local", "FAT", "Local Adv."}
    other = presets["MedFedPure"]
    for p in presets.values():
        assert p.classifier.fit == other.classifier.fit
        assert max(p.system.moe.sides) == max(other.system.moe.sides)
        for key in ("num_rounds", "local_epochs", "calm_rounds", "partition"):
            assert getattr(p.federated, key) == getattr(other.federated, key)


def test_a_row_hangs_on_what_trains_it_alone():
    preset = read_preset("br35h-reduced")
    federated = preset.federated
    longer = replace(preset, federated=replace(federated, rounds=PhaseRounds(diffusion=7)))
    other = replace(preset, novelty=replace(preset.novelty, ridge=1.0))
    bolder = replace(preset, classifier=replace(preset.classifier, loss=replace(
        preset.classifier.loss, adv_eps=0.5)))  # fmt: skip
    assert (
        select_settings(preset)
        == select_settings(longer)
        == select_settings(other)
        != select_settings(bolder)
    )
    whole = select_settings(preset, whole=True)
    assert whole == select_settings(other, whole=True)
    assert whole != select_settings(longer, whole=True) and whole != select_settings(
        bolder, whole=True
    )


def test_rows_stand_in_the_tables_order_whichever_came_first():
    rows = {"MedFedPure": 1, "FAT": 2, "FedAvg": 3}
    assert list(sort_rows(rows).items()) == [("FedAvg", 3), ("FAT", 2), ("MedFedPure", 1)]


def test_the_paper_s_setting_is_the_paper_s():
    p = read_preset(preset_of(TABLES["2-br35h"], "paper", METHODS[-1])).federated
    assert (p.partition.num_clients, p.num_rounds, p.local_epochs) == (10, 20, 15)


def test_unknown_methods_are_named():
    with pytest.raises(ValueError, match="unknown method 'fedavg': choose from FedAvg"):
        select_methods(["fedavg"])


def test_test_scans_fall_to_clients_whole_and_once(corpus, places, table):
    experiment = read_experiment(table.presets["reduced"], "paper", 0)
    arguments = (experiment, corpus, places.data, places.cache)
    parts = hospital_test_scans(*arguments, manifests=places.manifests)
    assert sum(len(part) for part in parts) == 8
    groups = [set(part.groups) for part in parts]
    for client, part in enumerate(groups):
        own = select_client_corpus(corpus, experiment.config.partition, client)
        assert not part & set(own.train.groups), "test scans are nobody's training scans"
    assert not groups[0] & groups[1]
    few = hospital_test_scans(*arguments, manifests=places.manifests, limit=1)
    assert [len(part) for part in few] == [1, 1]


@pytest.mark.slow
def test_methods_are_trained_attacked_compared_and_drawn(
    table, corpus, places, tmp_path, monkeypatch
):
    monkeypatch.setattr(fusion, "MAX_FEATURE_SHARE", 1.0)  # most of a small calibration's time
    path = tmp_path / "table-2-br35h-reduced.json"
    methods = select_methods(["Local", "pFedDef", "MedFedPure"])
    content = run(table, corpus, places, path, methods)
    assert set(content["rows"]) == {"Local", "pFedDef", "MedFedPure"}
    for name, row in content["rows"].items():
        assert row["attacks"]["clean"]["n"] == 8 and row["attacks"]["A3-lite"]["n"] == 4
        clean = row["attacks"]["clean"]
        assert clean["right"].count("1") == clean["k"] == sum(k for k, _ in clean["clients"])
        assert len(row["rounds"]) == 1 and row["cost"]["parameters"] > 0
        assert ("evasion" in row) == (name != "MedFedPure")
    assert set(content["tests"]) == {"Local", "pFedDef"}
    low, high = content["tests"]["pFedDef"]["A3-lite"]["difference"]
    assert -1 <= low <= high <= 1
    text = comparison.methods_table({path.stem: content})
    assert "Table II, Br35H, ResNet-18 clients, reduced setting" in text and "pFedDef" in text
    assert "own attack" in comparison.evasion_table({path.stem: content})
    assert path.with_suffix(".svg").read_text().count("pFedDef") >= 1
    before = path.read_bytes()
    run(table, corpus, places, path, methods)  # kept, not trained again
    content = json.loads(path.read_bytes())
    assert content["rows"] == json.loads(before)["rows"] and content["stale"] == []
    content["rows"]["Local"]["key"] = "another preset's"
    path.write_text(json.dumps(content))
    content = run(table, corpus, places, path, select_methods(["pFedDef"]))
    assert content["stale"] == ["Local"]
    assert "Of an earlier preset: Local." in comparison.methods_table({path.stem: content})


def test_scans_of_one_group_are_one_difference_and_a_tie_is_marked():
    """Ten scans of one patient that it alone reads right say no more than one would."""

    def row(right):
        return {"attacks": {"clean": {"right": right, "n": len(right)}}}

    rows = {"MedFedPure": row("1" * 20), "other": row("0" * 10 + "1" * 10)}
    found = {}
    for name, groups in (("alike", [0] * 10 + list(range(1, 11))), ("apart", list(range(20)))):
        found[name] = comparison.compare(rows, {"clean": groups})["other"]["clean"]
        assert found[name]["p"] == pytest.approx(2 / 2**10, rel=1e-3)
    assert found["alike"]["difference"][0] == 0 < found["apart"]["difference"][0]
    figures = {"mean": 0.5, "interval": (0.4, 0.6), "sd": 0.1, "worst": 0.3, "bottom_decile": 0.3}
    cells = {name: comparison._cell(figures, test) for name, test in found.items()}
    assert "≈" in cells["alike"] and "≈" not in cells["apart"]


def test_evasion_is_measured_on_the_victim_s_scans_with_the_attacker_s_gradient():
    x = torch.full((4, 1, 8, 8), 0.5)
    data = ScanDataset(
        (x[:, 0] * 255).to(torch.uint8).numpy(), torch.tensor([0, 1, 0, 1]), "abab", range(4)
    )

    def model(sign: float) -> ClientModel:
        def logits(z: torch.Tensor) -> torch.Tensor:
            level = sign * 100 * (z.mean((1, 2, 3)) - 0.4980392)
            return torch.stack([-level, level], 1)

        return ClientModel(logits, lambda z, _: logits(z), {})

    step = PGD(eps=0.1, alpha=0.1, steps=1, random_start=False)
    attack = Attack("A0", "", "", CLASSIFIER, lambda _: step)
    same = comparison.measure_evasion([model(1.0), model(1.0)], [data, data], attack)
    assert same["diagonal"] == same["off_diagonal"] == 0.0
    opposite = comparison.measure_evasion([model(1.0), model(-1.0)], [data, data], attack)
    assert opposite["diagonal"] == 0.0 and opposite["off_diagonal"] == 1.0
