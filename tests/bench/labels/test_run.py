"""The command from end to end on phantoms: it resumes, and lists without removing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.labels import run as labels
from bench.labels.pictures import LIMITS


@pytest.fixture
def call(data: tuple[Path, Path], tmp_path: Path):
    def run(*more: str) -> tuple[int, dict]:
        out = tmp_path / "labels.json"
        words = ["labels", "--data", data[0], "--manifests", data[1], "--out", out]
        words += ["--cache", tmp_path / "cache", "--preset", "smoke", "--parts", "2"]
        code = main([str(w) for w in (*words, "--repeats", "2", "--scans", "16", *more)])
        return code, json.loads(out.read_text()) if out.is_file() else {}

    return run


def test_a_killed_run_goes_on(call, data, tmp_path, monkeypatch):
    manifest = (data[1] / "patients.csv").read_bytes()
    read, asked = labels.read_part, []

    def stop_at_third(small, out, course, seed):
        asked.append(seed)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return read(small, out, course, seed)

    monkeypatch.setattr(labels, "read_part", stop_at_third)
    assert call()[0] == 130
    code, result = call()
    assert code == 0
    assert asked == [0, 1, 2, 2, 3]  # of the second call only what was missing
    rows = result["rows"]
    parts = [f"repeat {r}, part {p}" for r in (0, 1) for p in (0, 1)]
    assert list(rows) == ["odd", *parts, "disputed"]
    for repeat in (0, 1):
        own = [rows[name] for name in parts if name.startswith(f"repeat {repeat}")]
        assert sum(row["n"] for row in own) == rows["odd"]["n"] == rows["disputed"]["n"] == 20
        assert [len(row["log_odds"].split()) for row in own] == [row["n"] for row in own]
    assert (data[1] / "patients.csv").read_bytes() == manifest
    assert call()[1]["rows"] == rows


def test_odd_scans_alone_need_no_network(call, monkeypatch):
    monkeypatch.setattr(labels, "audit", None)
    code, result = call("--odd-only")
    assert code == 0 and list(result["rows"]) == ["odd"]
    assert set(LIMITS) < set(result["rows"]["odd"]["scans"])


def test_impossible_numbers_end_in_one_sentence(call, capsys):
    assert call("--parts", "1")[0] == 2
    assert "--parts at least 2" in capsys.readouterr().err


def test_disputed_scans_are_listed_with_their_near_duplicates(data):
    scans = labels.load_all("patients", data[0], cache=None, manifests=data[1])
    sign = 2 * scans.labels.double() - 1
    calibrated = torch.stack([4 * sign, 3 * sign])
    calibrated[:, 5] *= -1
    contrary = next(i for i, y in enumerate(scans.labels.tolist()) if y != scans.labels[5])
    agreeing = next(i for i, y in enumerate(scans.labels.tolist()) if y == scans.labels[5])
    found = labels.list_disputed(scans, calibrated, [(contrary, 5), (agreeing, 5)])
    [item] = found["scans"]
    entry = scans.entries[5]
    assert item == {
        "file": entry.file, "source": entry.source, "kind": entry.record.subtype,
        "unit": entry.group, "log_odds": calibrated[:, 5].tolist(),
        "contrary": [scans.entries[contrary].file], "agreeing": 1,
    }  # fmt: skip
    assert found["counts"] == {entry.source: 1}
    own = found["sources"][entry.source]
    assert own["accuracy"] == pytest.approx(1 - 1 / own["n"])


def test_the_table_counts_by_source():
    rows = {
        "odd": {"counts": {"identical": {"br35h": 2}, "colour": {}}},
        "disputed": {"counts": {"ixi": 3}},
    }
    provenance = {
        "date": "2026-11-29", "commit": "c" * 40,
        "machine": {"device_name": "cpu", "threads": 1},
    }  # fmt: skip
    text = labels.table({"labels": {"rows": rows, "provenance": provenance, "warnings": []}})
    lines = text.splitlines()
    assert lines[0] == "| scans | br35h | ixi |"
    assert lines[2] == "| label disputed: below probability 0.1 in every repeat | 0 | 3 |"
    assert lines[3] == "| byte-identical with another file | 2 | 0 |"
    assert lines[4].endswith("(0.002) | 0 | 0 |")
