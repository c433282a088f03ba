"""Figures of the maps come from the result files; what is missing says so."""

from __future__ import annotations

import json
from pathlib import Path

from demo.learn.pointing import MAPS, NOT_MEASURED, RESULTS, read_pointing, render_pointing


def test_figures_are_the_files(tmp_path: Path) -> None:
    file, row = MAPS["Grad-CAM"]
    share = {"k": 3, "n": 8, "interval": [0.1, 0.7], "interval_by_group": [0.05, 0.8]}
    rows = {row: {"pointing": share, "energy_inside": 0.25, "by_chance": 0.2}}
    (tmp_path / file).write_text(json.dumps({"rows": rows}))
    html = render_pointing(tmp_path)
    assert "38 % [5 to 80], 3 of 8" in html and "25 % (by chance 20 %)" in html
    assert html.count(NOT_MEASURED) == 2  # the tumour map's


def test_missing_or_broken_figures_are_not_measured(tmp_path: Path) -> None:
    assert render_pointing(tmp_path).count(NOT_MEASURED) == 2 * len(MAPS)
    for broken in ("no json", "[]", '{"rows": {"pointing": {"pointing": 1}}}'):
        (tmp_path / "one.json").write_text(broken)
        assert read_pointing("one.json", "pointing", tmp_path) is None


def test_grad_cams_figures_are_published() -> None:
    found = read_pointing(*MAPS["Grad-CAM"])
    row = json.loads((RESULTS / MAPS["Grad-CAM"][0]).read_text())["rows"]["pointing"]
    assert found is not None
    assert (found.hits, found.count) == (row["pointing"]["k"], row["pointing"]["n"])
