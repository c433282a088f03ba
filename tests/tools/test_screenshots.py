from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.demo.browser.accessibility import find_violations
from tests.demo.browser.browsing import NEEDS_BROWSER
from tools.screenshots import (
    LESSON,
    TABS,
    THEMES,
    save_screenshot,
    set_theme,
    take_step,
    visit_tabs,
)

pytestmark = NEEDS_BROWSER
UNTRAINED_APP = ("-m", "tests.demo.browser.serve")


@pytest.mark.slow
def test_every_tab_is_pictured_and_no_filled_tab_or_lesson_step_has_a_violation(
    tmp_path: Path,
) -> None:
    found = {}

    def check(page: Any, name: str) -> None:
        for theme in THEMES:
            set_theme(page, theme)
            save_screenshot(page, tmp_path / f"{name}-{theme}.jpg")
            found[f"{name}, {theme}"] = find_violations(page)

    for tab, page in visit_tabs(UNTRAINED_APP):
        check(page, tab)
        for step in LESSON[1:] if tab == "learn" else ():
            take_step(page, *step)
            check(page, step[0])
    names = [*TABS, *(step[0] for step in LESSON[1:])]
    assert sorted(found) == sorted(f"{name}, {theme}" for name in names for theme in THEMES)
    with Image.open(tmp_path / "about-light.jpg") as light:
        assert light.size == (960, 600) and light.resize((1, 1)).getpixel((0, 0))[0] > 128
    with Image.open(tmp_path / "about-dark.jpg") as dark:
        assert dark.size == (960, 600) and dark.resize((1, 1)).getpixel((0, 0))[0] < 64
    assert not any(found.values()), found
