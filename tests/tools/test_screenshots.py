from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.demo.browser.accessibility import find_violations
from tests.demo.browser.browsing import NEEDS_BROWSER
from tools.screenshots import LESSON, TABS, THEMES, save_screenshot, take_step, visit_tabs

pytestmark = NEEDS_BROWSER
UNTRAINED_APP = ("-m", "tests.demo.browser.serve")


@pytest.mark.slow
def test_every_tab_is_pictured_and_no_filled_tab_or_lesson_step_has_a_violation(
    tmp_path: Path,
) -> None:
    found, names = {}, []
    for name, page in visit_tabs(UNTRAINED_APP):
        names.append(name)
        save_screenshot(page, tmp_path / f"{name}.jpg")
        found[name] = find_violations(page)
        for step in LESSON[1:] if name.startswith("learn") else ():
            take_step(page, *step)
            found[f"{name}, {step[0]}"] = find_violations(page)
    assert names == [f"{tab}-{theme}" for theme in THEMES for tab in TABS]
    for name in names:
        with Image.open(tmp_path / f"{name}.jpg") as picture:
            assert picture.size == (960, 600)
    assert not any(found.values()), found
