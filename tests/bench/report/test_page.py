"""The report page on made-up results: all plots there, missing ones say so, same bytes twice."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser

import pytest

from bench.report import write
from bench.report.figures import standing_after
from bench.report.page import SECTIONS, page
from bench.report.part_plots import accuracy
from bench.report.svg import Plot, tick_text, ticks
from core.metrics import wilson_interval

MACHINE = {"device_name": "a machine", "threads": 1}
FACTS = {
    "protocol": "leak-free", "commit": "c" * 40, "dirty": False, "date": "2030-01-02T03:04:05",
    "machine": MACHINE, "settings": {}, "system": {"score": "fused"},
}  # fmt: skip
DATE = {"date": FACTS["date"], "commit": FACTS["commit"]}


def _result(**rows):
    rows = {name: {**row, **DATE} for name, row in rows.items()}
    return {"provenance": FACTS, "warnings": [], "rows": rows}


def _share(k: int, n: int = 10):
    both = {"interval": wilson_interval(k, n), "interval_by_group": (max(k / n - 0.3, 0), 1.0)}
    return {"k": k, "n": n, "accuracy": k / n, **both}


def _ladder():
    rows = {}
    for system, bits in (("defence", "1111111110"), ("undefended", "1111111100")):
        meaning = f"what {system} is"
        both = {"right": bits, "right_8bit": bits, "n": 10, "system": system}
        rows[f"clean: {system}"] = {"row": "clean", "meaning": meaning, **both, "scores": [
            [float(i) for i in range(10)]]}  # fmt: skip
        fallen = {**both, "right": "01111-----", "right_8bit": "10111-----", "tried": 5}
        rows[f"A3: {system}"] = {"row": "A3", "meaning": "through all", **fallen}
        rows[f"curve 0.06: {system}"] = {"curve": system, "eps": 0.06, **_share(1, 5)}
        rows[f"curve 0.015: {system}"] = {"curve": system, "eps": 0.015, **_share(3, 5)}
    rows["A3: defence"]["scores"] = [[5.0, 6.0, 7.0, 8.0, 9.0]]
    del rows["clean: undefended"]["scores"]
    return _result(**rows)


def _robustness():
    bins = {"n": [5, *[0] * 8, 5], "tumours": [0, *[0] * 8, 4], "mean": [0.1, *[None] * 8, 0.9]}
    systems = {
        name: {**_share(k), "calibration_error": 0.05, "reliability": bins}
        for name, k in (("defence", 9), ("undefended", 5))
    }
    return _result(
        clean={"meaning": "as they are", "systems": systems},
        A0={"meaning": "attacked", "systems": systems},
    )


def _detection():
    spread = {"low": -10.0, "high": 20.0, "counts": [0] * 10 + [10] + [0] * 19}
    kept = {
        "n": 10, "flagged": {s: {"accuracy": 0.5} for s in ("paper", "fused")},
        "tau": {"paper": 4.0, "fused": 0.25}, "histogram": {"paper": spread, "fused": spread},
    }  # fmt: skip
    score = {"auroc": 0.75, "interval": [0.7, 0.8], "roc": [i / 100 for i in range(101)]}
    attacked = {**kept, "scores": {"paper": score, "fused": score, "feature x": {"auroc": 0.5}}}
    rows = {
        f"{surface}, eps {eps}": {**attacked, "attack": {"eps": eps}}
        for surface in ("plain", "trained")
        for eps in (0.015, 0.004)
    }
    return _result(clean=kept, **rows)


@pytest.fixture
def results():
    return {
        "ladder-leak-free": _ladder(),
        "robustness-leak-free": _robustness(),
        "detection-leak-free": _detection(),
    }


class _Checker(HTMLParser):
    """Fails where a tag is left open; gathers what tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _plots(text: str) -> dict[str, int]:
    """How many pictures each section holds."""
    parts = text.split('<section id="')[1:]
    return {part.partition('"')[0]: part.count("<svg") for part in parts}


def test_every_plot_is_drawn_with_its_words_and_source(results):
    text = page(results)
    assert _plots(text) == {
        "eps": 1, "worst-case": 2, "accuracy": 2, "roc": 2, "ladder-roc": 1, "scores": 6,
        "reliability": 4,
    }  # fmt: skip
    assert "Not measured yet" not in text
    found = _Checker(text).found
    for tag, attributes in found:
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 20
    links = {a["href"] for tag, a in found if tag == "a"}
    assert links == {f"#{a['id']}" for tag, a in found if tag == "section"}
    assert text.count("results/robustness-leak-free.json") == 2
    assert text.count("commit cccccccccc") == len(SECTIONS)
    assert "fused, eps 0.015: AUROC 0.750 [0.700 to 0.800]" in text
    assert "threshold τ = 0.25" in text
    assert "AUROC 1.000" in text  # of the ladder's own scores: 5 to 9 against 0 to 4


def test_the_page_asks_nothing_of_anybody(results):
    found = _Checker(page(results)).found
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in found}
    assert "url(" not in page(results) and "http" not in page(results)


def test_the_same_results_give_the_same_bytes(results):
    assert page(results) == page(copy.deepcopy(results))
    again = json.loads(json.dumps(results))
    assert page(results) == page(again)


def test_what_is_missing_is_said(results):
    text = page({})
    assert text.count("Not measured yet") == len(SECTIONS)
    assert "results/detection-paper.json" in text
    for row in results["detection-leak-free"]["rows"].values():  # as older code left them
        row.pop("histogram")
        for score in row.get("scores", {}).values():
            score.pop("roc", None)
    for row in results["robustness-leak-free"]["rows"].values():
        for block in row["systems"].values():
            block.pop("reliability", None)
    for name in [n for n in results["ladder-leak-free"]["rows"] if n.startswith("curve")]:
        del results["ladder-leak-free"]["rows"][name]
    del results["ladder-leak-free"]["rows"]["A3: defence"]["scores"]
    text = page(results)
    assert _plots(text) == {
        "eps": 0, "worst-case": 2, "accuracy": 2, "roc": 0, "ladder-roc": 0, "scores": 0,
        "reliability": 0,
    }  # fmt: skip
    assert text.count("it was written by older code, or in part") == 5


def test_a_broken_file_is_not_called_missing(results):
    del results["robustness-leak-free"]["rows"]["A0"]["systems"]["defence"]["accuracy"]
    with pytest.raises(KeyError, match="accuracy"):
        page(results)


def test_names_are_escaped(results):
    rows = results["robustness-leak-free"]["rows"]
    rows["clean"]["meaning"] = "<b>bold</b> & more"
    rows["clean"]["systems"]['"><script>'] = rows["clean"]["systems"]["defence"]
    results["robustness-leak-free"]["warnings"] = ["<i>careful</i>"]
    text = page(results)
    _Checker(text)
    assert "<script" not in text and "<b>" not in text and "<i>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in text and "&lt;i&gt;careful" in text


def test_the_worst_case_counts_what_fell_in_either_form(results):
    shares = standing_after(results["ladder-leak-free"], "defence")
    assert [(s.name, s.share) for s in shares] == [("clean", 0.9), ("A3", 0.7)]
    assert shares[1].interval == wilson_interval(7, 10)


def test_the_curve_begins_with_the_same_scans_clean(results):
    text = page(results)
    # of ten scans the curve has five, evenly spaced: 0, 2, 4, 7 and 9, of which the last is wrong
    assert "whole defence: 80.0 at 0, 60.0 at 0.015, 20.0 at 0.06" in text


def test_intervals_are_by_group_unless_all_are_right(results):
    block = results["robustness-leak-free"]["rows"]["clean"]["systems"]["defence"]
    before = accuracy(results)
    block["interval_by_group"] = (0.1, 0.2)
    assert accuracy(results) != before
    block.update(_share(10))
    all_right = accuracy(results)
    block["interval_by_group"] = (1.0, 1.0)
    assert accuracy(results) == all_right


def test_check_compares_the_page_too(results, tmp_path, capsys):
    for name, content in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    readme = tmp_path / "README.md"
    readme.write_text("no tables\n")
    assert write.write(tmp_path, [readme], check=True) == 1
    assert "report.html is out of date" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert write.write(tmp_path, [readme]) == 0
    assert write.write(tmp_path, [readme], check=True) == 0
    (tmp_path / "report.html").write_text("older")
    assert write.write(tmp_path, [readme], check=True) == 1
    with pytest.raises(ValueError, match="there is no"):
        write.write(tmp_path, [tmp_path / "none.md"])
    assert (tmp_path / "report.html").read_text() == "older"


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, [0, 1]), (3, [0, 1, 2, 3]), (7, [0, 2, 4, 6, 8]), (480, [0, 100, 200, 300, 400, 500])],
)
def test_ticks_are_round_and_reach_the_highest(highest, expected):
    assert ticks(highest) == expected


def test_points_lie_where_the_axes_say():
    plot = Plot((0, 10), (0, 100))
    (left, bottom), (right, top) = plot.at(0, 0), plot.at(10, 100)
    assert left < right and top < bottom  # pixels count downwards
    assert plot.at(5, 50) == ((left + right) / 2, (top + bottom) / 2)
    assert [tick_text(v) for v in (0, 0.015, -0.5, 100.0, 2.5)] == [
        "0",
        ".015",
        "-.5",
        "100",
        "2.5",
    ]
