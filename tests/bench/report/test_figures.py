"""The figures of the docs: equal bytes from equal results, and a check by their data."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="the extra 'app' is not installed")

from bench.report import figures, write
from bench.report.headline import READINGS

ROOT = Path(__file__).parents[3]
NEEDS = {
    "robust-accuracy.svg": {READINGS},
    "accuracy-eps.svg": {figures.SUITE},
    "detector-scores.svg": {figures.DETECTION, figures.SUITE},
    "certified-accuracy.svg": {figures.CERTIFICATE},
    "risk-coverage.svg": {figures.STABILITY},
}


@pytest.fixture(scope="module")
def results():
    return write.read_results(ROOT / "results")


@pytest.fixture(scope="module")
def drawn(results):
    return figures.draw_all(results)


def test_equal_results_give_equal_bytes(results, drawn):
    assert list(NEEDS) == list(figures.FIGURES)
    rows = results.get(figures.SUITE, {"rows": {}})["rows"]
    is_measured = {
        "accuracy-eps.svg": any("curve" in row for row in rows.values()),
        "detector-scores.svg": "A9: defence" in rows,
    }
    expected = [
        name
        for name, stems in NEEDS.items()
        if stems <= results.keys() and is_measured.get(name, True)
    ]
    assert list(drawn) == expected != []
    assert figures.draw_all(copy.deepcopy(results)) == drawn


def test_a_figure_needs_nothing_else_and_names_its_data(results, drawn):
    data = figures.read_all(results)
    for name, svg in drawn.items():
        ElementTree.fromstring(svg)
        assert f"data {figures.data_key(data[name])}" in svg.decode() and b"<image" not in svg
        assert b"<script" not in svg and b"dc:date" not in svg


def test_the_curve_begins_with_the_same_scans_clean(results):
    rows = results.get(figures.SUITE, {"rows": {}})["rows"]
    if not any("curve" in row for row in rows.values()):
        pytest.skip("the curve has not been measured on the weights that ship")
    data = figures.read_accuracy_by_eps(results)
    for system, points in data.items():
        assert [point[0] for point in points] == [0.0, 0.004, 0.008, 0.015, 0.031, 0.06]
        assert len({point[4] for point in points}) == 1
        assert points[3][1] == rows[f"curve 0.015: {system}"]["accuracy"]


def test_missing_results_leave_their_figures_out(results):
    assert figures.draw_all({}) == {} == figures.read_all({})
    some = copy.deepcopy(results)
    some[figures.SUITE] = {"rows": {"clean: defence": {}}}  # stopped after the first row
    assert not {"accuracy-eps.svg", "detector-scores.svg"} & figures.read_all(some).keys()


def test_check_compares_figures_by_their_data(results, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    content = results[READINGS]
    file = folder / f"{READINGS}.json"
    file.write_text(json.dumps(content))
    page, name = tmp_path / "README.md", "robust-accuracy.svg"
    page.write_text("no tables\n")
    assert write.write(folder, [page], tmp_path, check=True) == 1
    assert f"{name} is out of date" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
    assert write.write(folder, [page], tmp_path) == 0
    assert write.write(folder, [page], tmp_path, check=True) == 0
    changed = copy.deepcopy(content)
    changed["rows"]["clean"]["systems"]["defence"]["accuracy"] = 0.5
    file.write_text(json.dumps(changed))
    before = (tmp_path / name).read_bytes()
    assert write.write(folder, [page], tmp_path, check=True) == 1
    with pytest.raises(ValueError, match="there is no"):
        write.write(folder, [tmp_path / "none.md"], tmp_path)
    assert (tmp_path / name).read_bytes() == before


def test_the_committed_pages_and_figures_are_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert write.write(Path("results"), write.PAGES, check=True) == 0
