"""Figures of the maps come from the result files; what is missing says so."""

from __future__ import annotations

import json
from pathlib import Path

from demo.learn.pointing import FILE, MAPS, NOT_MEASURED, read_pointing, render_pointing


def build_map(share: float, low: float, high: float) -> dict[str, object]:
    pointing = {"value": share, "interval": [low, high]}
    return {"mean": {"pointing": pointing, "energy": {"value": 0.25}, "chance": {"value": 0.2}}}


def test_figures_are_the_files(tmp_path: Path) -> None:
    maps = {"tumour map": build_map(0.81, 0.7, 0.9), "Grad-CAM": build_map(0.38, 0.05, 0.8)}
    (tmp_path / FILE).write_text(json.dumps({"rows": {"clean": {"maps": maps}}}))
    html = render_pointing(tmp_path)
    assert "81 % [70 to 90]" in html and "38 % [5 to 80]" in html
    assert html.count("25 % (by chance 20 %)") == 2 and NOT_MEASURED not in html


def test_missing_or_broken_figures_are_not_measured(tmp_path: Path) -> None:
    assert render_pointing(tmp_path).count(NOT_MEASURED) == 2 * len(MAPS)
    for broken in ("no json", "[]", '{"rows": {"clean": 1}}'):
        (tmp_path / FILE).write_text(broken)
        assert render_pointing(tmp_path).count(NOT_MEASURED) == 2 * len(MAPS)


def test_the_figures_are_published() -> None:
    for name in MAPS.values():
        found = read_pointing(name)
        assert found is not None and 0 < found.share < 1
