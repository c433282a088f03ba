"""Result files: finished rows are kept, other weights' rows are refused, no NaN gets in."""

import json

import pytest

from bench.provenance import ProvenanceError, machine_facts, weights_facts
from bench.store import Store, StoreError
from train.split import Manifest, read_manifest


def _open(path, identity="a", **options):
    return Store(path, "robustness", {"weights": identity}, {"machine": "here"}, **options)


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
    with pytest.raises(StoreError, match="other weights"):
        _open(path, identity="b")
    assert _open(path, identity="b", fresh=True).content["rows"] == {}


def test_a_warning_is_kept_once(tmp_path):
    store = _open(tmp_path / "r.json")
    store.warn("gradients may be masked")
    store.warn("gradients may be masked")
    assert _open(tmp_path / "r.json").content["warnings"] == ["gradients may be masked"]


def test_weights_of_another_split_are_refused(weights, data):
    manifest = read_manifest("leak-free", data[1])
    facts = weights_facts(weights, manifest)
    assert len(facts["sha256"]) == 7
    other = Manifest("leak-free", manifest.entries[1:])
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
