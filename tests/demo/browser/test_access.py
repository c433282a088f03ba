"""axe-core on every tab: names, structure and sizes once, contrast in dark and in light."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.scan import to_png
from demo.phantom import draw_phantom
from tests.demo.browser.accessibility import RULES, find_violations
from tests.demo.browser.browsing import NEEDS_BROWSER, SHOTS, Served, drop, wait_for_line

pytestmark = NEEDS_BROWSER


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_tab_has_a_violation(served: Served, visit: Any, theme: str) -> None:
    page = visit(f"{served.url}?__theme={theme}")
    look = partial(find_violations, page, RULES if theme == "dark" else ["color-contrast"])
    found = {"start": look()}
    drop(page, b"no picture", "bad.png")
    page.wait_for_selector(".mf-scan[role=alert]")
    found["refusal"] = look()
    drop(page, to_png(draw_phantom(1, True)))
    page.wait_for_selector(".mv-has-scan")
    page.click("#analyse")
    wait_for_line(page, "Done.")
    found["results"] = look()
    page.locator("#norm label", has_text="L2").click()
    page.wait_for_selector("#main.stale .mf-stale", state="visible")
    found["stale"] = look()
    for tab in ("Batch", "Learn", "About"):
        page.get_by_role("tab", name=tab, exact=True).click()
        found[tab] = look()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{tab.lower()}-{theme}.png")
    assert {place: v for place, v in found.items() if v} == {}
