"""Page with several hospitals in Chromium: one is chosen by key, the others read too."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from core.scan import to_png
from tests.demo.browser.accessibility import RULES, find_violations
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    Served,
    drop,
    open_settings,
    set_steps,
    wait_for_line,
    wait_for_scan,
)
from tests.hospitals import COUNT

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"), "--hospitals")
    yield server
    server.stop()


def components(server: Served) -> dict[str, Any]:
    """Return the page's components by elem_id."""
    with urllib.request.urlopen(f"{server.url}/config", timeout=30) as reply:
        found = [component["props"] for component in json.load(reply)["components"]]
    return {props["elem_id"]: props for props in found if props.get("elem_id")}


def test_there_is_a_choice_with_several_hospitals_alone(served: Served, federation: Served) -> None:
    pooled, several = components(served), components(federation)
    assert set(several) - set(pooled) == {"hospital"} and set(pooled) < set(several)
    choices = [[f"Hospital {n} (simulated)", n] for n in range(1, COUNT + 1)]
    assert several["hospital"]["choices"] == choices and several["hospital"]["value"] == 1
    assert not pooled["hospitals"]["visible"] and several["hospitals"]["visible"]


def test_programs_may_choose_where_there_is_a_choice(federation: Served) -> None:
    with urllib.request.urlopen(f"{federation.url}/gradio_api/info", timeout=30) as reply:
        endpoints = json.load(reply)["named_endpoints"]
    common = ["scan", "any_picture", "seed"]
    for name, inputs in {
        "/read": [*common, "slice", "hospital", "with_map", "d"],
        "/read_volume": [*common, "hospital"],
    }.items():
        found = {p["parameter_name"]: p["parameter_default"] for p in endpoints[name]["parameters"]}
        assert list(found) == inputs and found["hospital"] == 0


def test_read_as_another_hospital(
    federation: Served, visit: Callable[[str], Any], scan: Tensor
) -> None:
    page = visit(federation.url)
    assert find_violations(page, RULES) == []
    drop(page, to_png(scan))
    wait_for_scan(page)
    open_settings(page)
    box = page.get_by_label("Read as")
    assert box.input_value() == "Hospital 1 (simulated)"
    box.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#hospital [role=option] >> nth=2")
    assert find_violations(page, RULES) == []
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('#hospital input').value.includes(' 1 ')")
    chosen = box.input_value()
    assert chosen in {f"Hospital {n} (simulated)" for n in range(2, COUNT + 1)}
    page.click("#analyse")
    wait_for_line(page, "Done.")
    assert page.locator("#main.stale").count() == 0
    assert f"read as {chosen}".lower() in page.inner_text(".mf-outputs h3").lower()
    rows = page.locator(".mf-hospitals tbody tr")
    rows.nth(COUNT - 1).wait_for()
    assert rows.count() == COUNT
    assert page.inner_text(".mf-chosen th").replace("\n", "").startswith(chosen.split(" (")[0])
    assert find_violations(page, RULES) == []
    page.evaluate(
        "() => document.body.classList.remove('dark') || "
        "document.documentElement.classList.add('mf-light')"
    )
    assert find_violations(page, ["color-contrast"]) == []
    box.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#main.stale .mf-stale", state="visible")


def test_stop_ends_the_readings_at_the_hospitals(
    federation: Served, visit: Callable[[str], Any], scan: Tensor
) -> None:
    page = visit(federation.url)
    rows = page.locator(".mf-hospitals tbody tr")
    rows.nth(COUNT - 1).wait_for()  # of the example that the page opens on
    drop(page, to_png(scan))
    wait_for_scan(page)
    assert rows.count() == 0
    open_settings(page)
    set_steps(page, 40)
    page.locator("#aim label", has_text="the defence").click()  # lasts until it is stopped
    page.click("#analyse")
    wait_for_line(page, " of 40, ")
    page.click("#stop")
    wait_for_line(page, "Stopped")
    page.wait_for_timeout(3000)  # in which an event that follows the analysis would have started
    assert rows.count() == 0 and "Stopped" in page.inner_text(".mf-line")
