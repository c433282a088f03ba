"""The figures name their parts, and no text leaves its box in a wide font."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import ImageFont

from demo.about import svg
from demo.about.figures import build_figures
from demo.about.tab import render_about
from demo.serving.launch import STYLESHEETS

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu: wider than the page's fonts
MARGIN = 4  # between a text and the edge of its box, in SVG units
FIGURES = {figure.name: figure for figure in build_figures()}
PANELS = {panel.key: panel for figure in FIGURES.values() for panel in figure.panels}
PARTS = {
    "training": ["Server", "Hospital 1", "Hospital 2", "Hospital 10", "networks", "stay here"],
    "attack": [
        "Attacker", "attacked scan", "looks the same", "Without defence", "“no tumour”",
        "With defence", "“tumour”",
    ],
    "server": ["Server", "then server momentum (FedAvgM)", "experts", "attention", "stays home"],
    "client": [
        "Expert 1", "Expert 2", "Expert 3", "Attention", "Weighted mean", "autoencoder, diffusion,",
        "Sent and averaged", "Stays at home", "batch-norm statistics,", "threshold, calibration",
    ],
    "defence": [
        "Scan", "Expert 1", "Expert 2", "Expert 3", "Attention: weight of each vote", "Answer",
        "Stability", "Detector", "Purifier", "not to rely on", "alarm, if the", "purified scan,",
    ],
}  # fmt: skip
Edges = tuple[float, float, float, float]  # left, top, right, bottom


def parse(panel: svg.Panel) -> ElementTree.Element:
    drawing = svg.draw_frame(
        panel.key, panel.title, panel.description, panel.width, panel.height, panel.content
    )
    return ElementTree.fromstring(drawing)


def measure_texts(panel: svg.Panel) -> list[tuple[str, Edges]]:
    texts = []
    for text in parse(panel).iter("text"):
        kind, words = text.get("class", ""), str(text.text)
        bold = kind in ("mf-title", "mf-heading")
        font = ImageFont.truetype(
            FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), 15.5 if bold else 14
        )
        width, x, y = font.getlength(words), float(str(text.get("x"))), float(str(text.get("y")))
        left = x if kind in ("mf-left", "mf-heading") else x - width / 2
        texts.append((words, (left, y - 11, left + width, y + 4)))
    return texts


def measure_boxes(panel: svg.Panel) -> list[Edges]:
    edges = []
    for box in parse(panel).findall("rect[@class]"):
        x, y, width, height = (float(str(box.get(k))) for k in ("x", "y", "width", "height"))
        edges.append((x, y, x + width, y + height))
    return edges


def find_overflows(panel: svg.Panel) -> list[str]:
    """Return the texts that leave the frame, cross the edge of a box or touch another text."""
    texts, boxes = measure_texts(panel), measure_boxes(panel)
    faults = []
    for i, (words, text) in enumerate(texts):
        inside_frame = lies_inside(text, (0, 0, panel.width, panel.height), 0)
        clear = all(lies_inside(text, b, MARGIN) or lies_apart(text, b) for b in boxes)
        alone = all(lies_apart(text, other) for _, other in texts[:i])
        if not (inside_frame and clear and alone):
            faults.append(words)
    return faults


def lies_inside(text: Edges, box: Edges, margin: float) -> bool:
    return (
        text[0] >= box[0] + margin
        and text[2] <= box[2] - margin
        and text[1] >= box[1]
        and text[3] <= box[3]
    )


def lies_apart(one: Edges, other: Edges) -> bool:
    return (
        one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    )  # fmt: skip


@pytest.mark.parametrize("key", PANELS)
def test_each_figure_names_its_parts(key: str) -> None:
    words = [words for words, _ in measure_texts(PANELS[key])]
    assert [part for part in PARTS[key] if part not in words] == []


@pytest.mark.parametrize("key", PANELS)
def test_no_text_leaves_its_box(key: str) -> None:
    assert find_overflows(PANELS[key]) == []


def test_a_text_too_long_for_its_box_is_found() -> None:
    long = "a sentence that no box of this figure could hold"
    for content in (
        svg.draw_box(6, 6, 120, 60, "Server", long),
        svg.draw_text(100, 20, "one") + svg.draw_text(104, 20, "on top of it"),
        svg.draw_text(190, 20, "beyond"),
    ):
        panel = replace(PANELS["training"], width=200, content=content)
        assert len(find_overflows(panel)) == 1


@pytest.mark.parametrize("key", PANELS)
def test_boxes_and_arrows_stay_in_the_frame(key: str) -> None:
    panel = PANELS[key]
    frame = (0.0, 0.0, float(panel.width), float(panel.height))
    assert all(lies_inside(box, frame, 0) for box in measure_boxes(panel))
    for line in parse(panel).iter("polyline"):
        for point in str(line.get("points")).split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= panel.width and 0 <= y <= panel.height


def test_the_answer_flips_without_defence_alone() -> None:
    root = parse(PANELS["attack"])
    answers = {}
    for box in root.findall("rect[@class]"):
        x, y, width = (float(str(box.get(k))) for k in ("x", "y", "width"))
        title = root.find(f"text[@x='{x + width / 2:g}'][@y='{y + svg.TITLE_BASELINE:g}']")
        if title is not None:
            answers[title.text] = str(box.get("class")).removeprefix("mf-box mf-")
    assert answers["“no tumour”"] == "wrong" and answers["“tumour”"] == "right"


def test_what_stays_at_home_is_edged_as_such() -> None:
    for key, place in (("training", "scans"), ("server", "attention")):
        texts = [e for words, e in measure_texts(PANELS[key]) if words == place]
        boxes = [
            (float(str(b.get("x"))), float(str(b.get("y"))), float(str(b.get("width"))))
            for b in parse(PANELS[key]).findall("rect[@class='mf-box mf-home']")
        ]
        inside = [
            any(x <= left and right <= x + w and y <= top for x, y, w in boxes)
            for left, top, right, _ in texts
        ]
        assert sum(inside) == 3  # in each of the hospitals


@pytest.mark.parametrize("key", PANELS)
def test_a_screen_reader_gets_whole_sentences(key: str) -> None:
    root, panel = parse(PANELS[key]), PANELS[key]
    names = str(root.get("aria-labelledby")).split()
    assert root.get("role") == "img"
    assert [root[i].get("id") for i in (0, 1)] == names
    assert [root[i].tag for i in (0, 1)] == ["title", "desc"]
    for text in (panel.title, panel.description):
        assert text[0].isupper() and text.endswith(".")


def test_the_page_shows_each_figure_once_with_its_caption() -> None:
    html = render_about()
    assert html.count('<figure class="mf-figure">') == 3
    for number, figure in zip(("1", "2(a)", "2(b)"), FIGURES.values(), strict=True):
        assert f"the paper's figure {number}" in figure.source and "Here" in figure.source
    identifiers = re.findall(r' id="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers)) == 2 * len(PANELS)


def test_colours_and_sizes_are_the_page_s_and_no_other_rule_touches_them() -> None:
    drawings = "".join(panel.content for panel in PANELS.values())
    assert not re.search(r' (fill|stroke|style|font-size)="', drawings)
    sheets = {path.name: path.read_text(encoding="utf-8") for path in STYLESHEETS}
    for name in set(" ".join(re.findall(r'class="([^"]+)"', drawings)).split()):
        users = [sheet for sheet, text in sheets.items() if re.search(rf"\.{name}\b(?!-)", text)]
        assert users == ["figures.css"], name
