"""Figures of the maps come from the result files; what is missing says so."""

from __future__ import annotations

import json
from pathlib import Path

from demo.learn.pointing import (
    EARLIER_FILE,
    FILE,
    MAPS,
    NOT_MEASURED,
    RESULTS,
    read_pointing,
    render_pointing,
)


def build_map(share: float, low: float, high: float) -> dict[str, object]:
    pointing = {"value": share, "interval": [low, high]}
    return {"mean": {"pointing": pointing, "energy": {"value": 0.25}, "chance": {"value": 0.2}}}


def test_figures_are_the_files(tmp_path: Path) -> None:
    maps = {"tumour map": build_map(0.81, 0.7, 0.9), "Grad-CAM": build_map(0.38, 0.05, 0.8)}
    (tmp_path / FILE).write_text(json.dumps({"rows": {"clean": {"maps": maps}}}))
    html = render_pointing(tmp_path)
    assert "81 % [70 to 90]" in html and "38 % [5 to 80]" in html
    assert html.count("25 % (by chance 20 %)") == 2 and NOT_MEASURED not in html


def test_grad_cams_earlier_figures_stand_until_measured_again(tmp_path: Path) -> None:
    hits = {"k": 3, "n": 8, "interval_by_group": [0.05, 0.8]}
    row = {"pointing": hits, "energy_inside": 0.25, "by_chance": 0.2}
    (tmp_path / EARLIER_FILE).write_text(json.dumps({"rows": {"pointing": row}}))
    html = render_pointing(tmp_path)
    assert "38 % [5 to 80]" in html
    assert html.count(NOT_MEASURED) == 2  # the tumour map's


def test_missing_or_broken_figures_are_not_measured(tmp_path: Path) -> None:
    assert render_pointing(tmp_path).count(NOT_MEASURED) == 2 * len(MAPS)
    for broken in ("no json", "[]", '{"rows": {"pointing": {"pointing": 1}, "clean": 1}}'):
        (tmp_path / FILE).write_text(broken)
        (tmp_path / EARLIER_FILE).write_text(broken)
        assert render_pointing(tmp_path).count(NOT_MEASURED) == 2 * len(MAPS)


def test_grad_cams_figures_are_published() -> None:
    found = read_pointing("Grad-CAM")
    assert found is not None and 0 < found.share < 1
    if not (RESULTS / FILE).exists():
        hits = json.loads((RESULTS / EARLIER_FILE).read_text())["rows"]["pointing"]["pointing"]
        assert found.share == hits["k"] / hits["n"]
