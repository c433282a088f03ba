"""Result files: finished rows are kept, other weights' rows are refused, no NaN gets in."""

import json

import pytest

from bench.markdown import source
from bench.provenance import ProvenanceError, machine_facts, weights_facts
from bench.result_file import ResultFile, ResultFileError
from train.data.split import Manifest, read_manifest


def _open(path, identity="a", **options):
    return ResultFile(path, "robustness", {"weights": identity}, {"machine": "here"}, **options)


def test_a_finished_row_is_not_computed_again(tmp_path):
    path = tmp_path / "results" / "r.json"
    _open(path).row("clean", lambda: {"accuracy": 0.123456789})
    again = _open(path)
    kept = again.row("clean", lambda: pytest.fail("computed twice"))
    assert kept["accuracy"] == 0.123457
    again.row("A0", lambda: {"accuracy": float("nan"), "interval": (0.1, 0.2)})
    content = json.loads(path.read_text())
    assert list(content["rows"]) == ["clean", "A0"]
    assert content["rows"]["A0"]["accuracy"] is None
    assert {"wall_s", "date", "commit"} <= content["rows"]["A0"].keys()
    assert {"weights", "machine", "commit", "dirty", "date"} <= content["provenance"].keys()


def test_a_row_that_fails_leaves_the_finished_ones(tmp_path):
    store = _open(tmp_path / "r.json")
    store.row("clean", dict)
    with pytest.raises(KeyboardInterrupt):
        store.row("A0", _interrupt)
    assert list(json.loads((tmp_path / "r.json").read_text())["rows"]) == ["clean"]


def test_rows_of_other_weights_are_refused_unless_fresh(tmp_path):
    path = tmp_path / "r.json"
    _open(path).row("clean", dict)
    with pytest.raises(ResultFileError, match="other weights"):
        _open(path, identity="b")
    assert _open(path, identity="b", fresh=True).content["rows"] == {}


def test_what_is_other_is_named_with_both_values(tmp_path):
    path = tmp_path / "r.json"

    def opened(**settings):
        identity = {"weights": {"a": "0" * 64}, "settings": settings}
        return ResultFile(path, "robustness", identity, {"machine": "here"})

    opened(limit=480, old=1, eps=1 / 3).row("clean", dict)
    opened(limit=480, old=1, eps=1 / 3)
    with pytest.raises(
        ResultFileError, match=r"settings \(settings limit: 480 there, None now\): give"
    ):
        opened(limit=None, old=1, eps=1 / 3)
    with pytest.raises(ResultFileError, match=r"\(settings old: 1 there, None now\).*forgets all"):
        opened(limit=480, eps=1 / 3)


def test_a_row_whose_own_settings_have_changed_is_computed_again(tmp_path):
    store = _open(tmp_path / "r.json")
    store.row("FedAvg", lambda: {"accuracy": 1}, preset={"rounds": 40})
    kept = _open(tmp_path / "r.json").row(
        "FedAvg", lambda: pytest.fail("twice"), preset={"rounds": 40}
    )
    assert kept["accuracy"] == 1
    store.row("FAT", lambda: {"accuracy": 3}, preset={"rounds": 40})
    again = _open(tmp_path / "r.json").row(
        "FedAvg", lambda: {"accuracy": 2}, preset={"rounds": 120}
    )
    assert again["accuracy"] == 2 and again["key"] != kept["key"]
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {name: row["accuracy"] for name, row in rows.items()} == {"FedAvg": 2, "FAT": 3}


def test_a_row_of_another_commit_is_kept_and_said_so(tmp_path, monkeypatch, capsys):
    for commit in "aab":
        facts = {"commit": commit * 40, "dirty": False}
        monkeypatch.setattr("bench.result_file.code_facts", lambda known=facts: known)
        _open(tmp_path / "r.json").row("A0", lambda: {"accuracy": 1})
    first, same, other = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("A0: done") and same.startswith("A0: kept")
    assert "commit" not in same and other.endswith(f", measured with commit {'a' * 40}")


def test_rows_name_their_own_code_and_machine(tmp_path, monkeypatch):
    path = tmp_path / "r.json"

    def row(name: str, commit: str, device: str) -> None:
        facts = {"commit": commit, "dirty": False}
        monkeypatch.setattr("bench.result_file.code_facts", lambda: facts)
        machine = {"device_name": device, "threads": 1}
        ResultFile(path, "tables", {}, {"machine": machine}).row(name, dict)

    row("FedAvg", "a" * 40, "one processor")
    content = json.loads(path.read_text())
    for key in ("commit", "machine", "dirty"):  # as files of before hold them
        del content["rows"]["FedAvg"][key]
    path.write_text(json.dumps(content))
    row("FAT", "b" * 40, "another")
    rows = json.loads(path.read_text())["rows"]
    assert [r["commit"][0] + r["machine"]["device_name"][0] for r in rows.values()] == ["ao", "ba"]
    said = source(json.loads(path.read_text()))
    assert f"commit {'a' * 10}, {'b' * 10}; another, 1 threads; one processor, 1 threads." in said


def test_a_warning_is_kept_once(tmp_path):
    store = _open(tmp_path / "r.json")
    store.warn("gradients may be masked")
    store.warn("gradients may be masked")
    assert _open(tmp_path / "r.json").content["warnings"] == ["gradients may be masked"]


def test_weights_of_another_split_are_refused(weights, data):
    manifest = read_manifest("paper", data[1])
    facts = weights_facts(weights, manifest)
    assert len(facts["sha256"]) == 7
    other = Manifest("paper", manifest.entries[1:])
    with pytest.raises(ProvenanceError, match="trained on another split"):
        weights_facts(weights, other)


def test_the_machine_is_named():
    import torch

    facts = machine_facts(torch.device("cpu"))
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert facts["device_name"]


def _interrupt():
    raise KeyboardInterrupt
