"""axe-core on every tab, dark and light: nobody is kept out by contrast, names or structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.browser import violations
from core.scan import to_png
from demo.phantom import phantom
from tests.demo.test_browser import (
    SHOTS,
    Served,
    browser,
    drop,
    pytestmark,
    served,
    visit,
    wait_for_line,
)

__all__ = ["browser", "pytestmark", "served", "visit"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_tab_has_a_violation(served: Served, visit: Any, theme: str) -> None:
    page = visit(f"{served.url}?__theme={theme}")
    found = {"start": violations(page)}
    drop(page, b"no picture", "bad.png")
    page.wait_for_selector(".mf-scan[role=alert]")
    found["refusal"] = violations(page)
    drop(page, to_png(phantom(1, True)))
    page.wait_for_selector(".mv-has-scan")
    page.click("#analyse")
    wait_for_line(page, "Done.")
    found["results"] = violations(page)
    page.locator("#norm label", has_text="L2").click()
    page.wait_for_selector("#main.stale .mf-stale", state="visible")
    found["stale"] = violations(page)
    for tab in ("Batch", "Learn", "About"):
        page.get_by_role("tab", name=tab, exact=True).click()
        found[tab] = violations(page)
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{tab.lower()}-{theme}.png")
    assert {place: v for place, v in found.items() if v} == {}
