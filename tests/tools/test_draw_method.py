"""The figures of the documents equal the page's."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from demo.about.figures import build_figures
from tools.draw_method import DOCS, render_files

FILES = render_files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_file_is_the_page_s_figure(path):
    assert path.read_text(encoding="utf-8") == FILES[path]


@pytest.mark.parametrize("figure", build_figures(), ids=lambda figure: figure.name)
def test_a_file_is_whole_and_holds_every_panel(figure):
    text = FILES[DOCS / f"{figure.name}.svg"]
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert all(panel.content in text for panel in figure.panels)
    assert "var(" not in text and "#0f766e" in text  # colours stand in the file itself
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", text)


def test_the_method_shows_every_figure():
    method = (DOCS / "method.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", method) == [path.name for path in FILES]
