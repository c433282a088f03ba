"""axe-core on every tab: names, structure and sizes once, contrast in dark and in light."""

from __future__ import annotations

from typing import Any

import pytest

from core.scan import to_png
from demo.phantom import draw_phantom
from tests.demo.browser.accessibility import RULES, find_violations
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    Served,
    drop,
    open_settings,
    wait_for_line,
    wait_for_scan,
)
from tools.screenshots import THEMES, set_theme

pytestmark = NEEDS_BROWSER


@pytest.mark.slow
def test_no_tab_has_a_violation(served: Served, visit: Any) -> None:
    page = visit(served.url)
    found = {}

    def check(name: str) -> None:
        for theme in THEMES:
            set_theme(page, theme)
            rules = RULES if theme == THEMES[0] else ["color-contrast"]
            found[f"{name}, {theme}"] = find_violations(page, rules)

    wait_for_line(page, "finished example")
    check("start")
    drop(page, b"no picture", "bad.png")
    page.wait_for_selector(".mf-scan[role=alert]")
    check("refusal")
    drop(page, to_png(draw_phantom(1, True)))
    wait_for_scan(page)
    page.click("#analyse")
    wait_for_line(page, "Done.")
    check("results")
    open_settings(page)
    check("settings")
    page.locator("#norm label", has_text="L2").click()
    page.wait_for_selector("#main.stale .mf-stale", state="visible")
    check("stale")
    for tab in ("Batch", "Learn", "About"):
        page.get_by_role("tab", name=tab, exact=True).click()
        check(tab)
    assert {place: v for place, v in found.items() if v} == {}
