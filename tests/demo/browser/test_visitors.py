"""Concurrent visitors, the lesson, programs and strangers on the served page."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from core.scan import to_png, to_uint8
from demo.phantom import draw_phantom
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    ROOT,
    Served,
    call_api,
    drop,
    open_settings,
    post,
    read_back,
    same,
    set_steps,
    wait_for_line,
    wait_for_scan,
)
from tests.demo.browser.serve import REFUSAL

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]


def test_the_lesson_is_computed_and_the_quiz_answers(
    served: Served, visit: Callable[[str], Any]
) -> None:
    page = visit(served.url)
    page.get_by_role("tab", name="Learn").click()
    page.click("#lesson-2-button")  # a teacher may begin anywhere, and is told what is missing
    page.click("#lesson-detect")
    page.wait_for_selector("#learned-2 >> text=First choose a scan")
    page.click("#lesson-0-button")
    page.click("#look-0")
    page.wait_for_selector("#learned-0 .mf-output")
    page.click("#lesson-0-next")
    page.click("#lesson-attack")
    page.wait_for_selector("#learned-1 >> text=Step 7 of 7", timeout=90_000)
    page.locator("#lesson-step input[type=range]").press("ArrowLeft")
    page.wait_for_selector("#learned-1 >> text=Step 6 of 7")
    for step, button in ((2, "detect"), (3, "purify"), (4, "vote"), (5, "heat"), (6, "change")):
        page.click(f"#lesson-{step - 1}-next")
        page.click(f"#lesson-{button}")
        page.wait_for_selector(f"#learned-{step} .mf-say", timeout=90_000)
    page.click("#lesson-0-button")
    page.click("#look-1")  # another scan: nothing of the first one stays
    page.wait_for_selector("#learned-0 >> text=drawn without a tumour")
    page.click("#lesson-4-button")
    assert page.locator("#learned-4 img").count() == 0
    page.click("#lesson-7-button")
    assert page.is_disabled("#quiz-A")
    for done in (1, 2):
        page.click("#quiz-new")
        page.wait_for_selector("#quiz-B:enabled", timeout=90_000)
        assert page.locator("#quiz-view img").count() == 2
        page.click("#quiz-B")
        page.wait_for_selector(f"#quiz-view >> text=of {done};")
        assert page.locator("#quiz-view img").count() == 3
    page.get_by_role("tab", name="About").click()
    page.wait_for_selector(".mf-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert served.kept() == []


def test_an_attack_can_be_stopped(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url)
    page.click("#sample-1")
    page.wait_for_selector("#scan >> text=Known failure")
    open_settings(page)
    assert page.is_checked('#truth input[value="no tumour"]')  # as it was drawn
    set_steps(page, 40)
    page.locator("#aim label", has_text="the defence").click()
    page.click("#analyse")
    wait_for_line(page, " of 40, ")
    page.click("#stop")
    wait_for_line(page, "Stopped")
    time.sleep(2)
    assert "Stopped" in page.inner_text(".mf-line")
    page.locator("#kind label", has_text="FGSM").click()  # and the machine is free again
    page.click("#analyse")
    wait_for_line(page, "Done.")


def test_two_visitors_get_their_own_results(served: Served, visit: Callable[[str], Any]) -> None:
    scans = [draw_phantom(5, True), draw_phantom(6, False)]
    pages = [visit(served.url) for _ in scans]
    for page, scan in zip(pages, scans, strict=True):
        drop(page, to_png(scan))
        wait_for_scan(page)
    for page in pages:
        page.click("#analyse")
    for page, scan in zip(pages, scans, strict=True):
        wait_for_line(page, "Done.")
        assert same(read_back(page, "original"), to_uint8(scan)[0])


def test_the_api_is_one_documented_call(served: Served, scan: Tensor, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{served.url}/gradio_api/info", timeout=10) as reply:
        assert list(json.load(reply)["named_endpoints"]) == ["/read", "/read_volume"]
    with ThreadPoolExecutor(4) as pool:  # the same file four times at once
        answers = list(
            pool.map(lambda seed: call_api(served, to_png(scan), False, seed), [0, 0, 1, 1])
        )
    assert {answer["seed"] for answer in answers} == {0, 1}
    assert len({answer["tumour_probability"] for answer in answers[:2]}) == 1
    assert {"flagged", "score", "tau", "t_star", "attention", "timings_ms"} <= set(answers[0])
    assert "empty" in str(call_api(served, b"", False, 0)) and served.kept() == []


@pytest.mark.parametrize("path", [str(ROOT / "README.md"), "http://169.254.169.254/latest"])
@pytest.mark.parametrize("place", [0, 1])  # the file, and an input that takes none
def test_paths_on_the_server_and_addresses_are_refused(
    served: Served, path: str, place: int
) -> None:
    data: list[Any] = [None, True, 0, 0, False]
    data[place] = {"path": path, "meta": {"_type": "gradio.FileData"}}
    question = json.dumps({"data": data}).encode()
    event = post(f"{served.url}/gradio_api/call/read", question, "application/json")["event_id"]
    with urllib.request.urlopen(f"{served.url}/gradio_api/call/read/{event}", timeout=180) as reply:
        answer = reply.read().decode()
    assert "event: error" in answer and "tumour" not in answer and served.kept() == []


def test_missing_weights_are_said_and_nothing_is_read(
    visit: Callable[[str], Any], tmp_path: Path, scan: Tensor
) -> None:
    server = Served(tmp_path, "--no-weights")
    try:
        page = visit(server.url)
        assert REFUSAL in page.inner_text(".mf-banner")
        assert page.is_disabled("#analyse")
        assert page.locator("td[data-says]").count() == 0
        assert "tumour_probability" not in str(call_api(server, to_png(scan)))
        folder = server.folder
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not folder.exists()
