"""The README's figure equals the page's."""

from __future__ import annotations

from tools.draw_method import TARGET, render_file


def test_the_file_is_the_page_s_figure():
    assert TARGET.read_text(encoding="utf-8") == render_file()
