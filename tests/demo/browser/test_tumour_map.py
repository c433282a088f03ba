"""Tumour map in Chromium: words, outline and colours follow threshold, opacity and expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from core.pipeline import MedFedPure
from core.scan import to_png
from demo.analysis.regions import list_regions
from demo.rendering.tumour_map import THRESHOLDS, describe_regions
from tests.demo.browser.accessibility import find_violations
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    Served,
    drop,
    read_back,
    same,
    wait_for_line,
    wait_for_scan,
)
from tests.demo.browser.test_explore import slices
from tools.screenshots import THEMES, set_theme

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("mapping"), "--maps")
    yield server
    server.stop()


def set_range(page: Any, name: str, value: str) -> None:
    page.locator(f"[data-set={name}]").evaluate(
        "(control, value) => { control.value = value; "
        "control.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def test_map_over_the_scan(
    mapping: Served, visit: Callable[[str], Any], mapping_system: MedFedPure, scan: Tensor
) -> None:
    page = visit(mapping.url)
    drop(page, to_png(scan))
    wait_for_scan(page)
    page.click("#analyse")
    wait_for_line(page, "Done.")
    d = mapping_system.read(scan)
    assert d.tumour_map is not None and d.expert_maps is not None
    level = next(k for k in range(19) if THRESHOLDS[k] > float(d.tumour_map.median()))
    level = max(0, level - 1)
    set_range(page, "level", str(level))
    threshold = THRESHOLDS[level]
    for expert, cells in enumerate([d.tumour_map, d.expert_maps[0]]):
        page.select_option("[data-set=expert]", str(expert))
        (found,) = list_regions(cells[None], [threshold], scan)[0]
        words = describe_regions(found, threshold)
        page.wait_for_function(  # drawn in the browser's next frames
            "words => document.querySelector('.mv-where dd').innerText === words && document"
            ".querySelector('[data-panel=original] canvas').ariaLabel.includes(words)",
            arg=words,
        )
    page.select_option("[data-set=expert]", "0")
    set_range(page, "cover", "0")  # only the outline is left
    inside = (d.tumour_map >= threshold).numpy().repeat(4, 0).repeat(4, 1)
    grey = (scan[0] * 255).round().int().numpy()
    shown = read_back(page, "original")
    padded = np.pad(inside, 3, mode="edge")
    near = np.zeros_like(inside)  # within 3 pixels of an edge of the region, or of the picture's
    for dy in range(7):
        for dx in range(7):
            near |= padded[dy : dy + 224, dx : dx + 224] != inside
    near[:3] = near[-3:] = near[:, :3] = near[:, -3:] = True
    assert (np.abs(shown - grey)[~near & (shown >= 0)] <= 1).all()
    if near[10:-10, 10:-10].any():
        assert (np.abs(shown - grey)[near] > 1).any()
    page.focus(".mv")
    page.keyboard.press("t")
    assert not page.is_checked("[data-set=tumour]")
    assert same(read_back(page, "original"), grey)
    page.keyboard.press("o")  # one map at a time
    page.keyboard.press("t")
    assert page.is_checked("[data-set=tumour]") and not page.is_checked("[data-set=overlay]")
    assert "Grad-CAM" not in page.inner_text("#reading")
    assert "Experts: shares that add up to the output" in page.inner_text("#outputs")
    for theme in THEMES:
        set_theme(page, theme)
        assert find_violations(page) == []


# list what the slider's live regions would speak
WATCH_STATUS = """() => {
  window.spoken = [];
  const note = (records) => window.spoken.push(...records.map((r) => r.target.textContent));
  const kinds = { childList: true, characterData: true, subtree: true };
  const regions = document.querySelectorAll(".ms [role=status]");
  if (regions.length !== 2) throw new Error("there should be two");
  regions.forEach((region) => new MutationObserver(note).observe(region, kinds));
}"""


def test_the_answer_for_a_volume_is_spoken_once(
    mapping: Served, visit: Callable[[str], Any]
) -> None:
    page = visit(mapping.url)
    files = [
        {"name": f"{n}.dcm", "mimeType": "application/dicom", "buffer": data}
        for n, data in enumerate(slices(3)[0])
    ]
    page.set_input_files("#file input[type=file]", files)
    page.wait_for_function("document.querySelector('.ms-at')?.innerText === '2 / 3'")
    page.click("#scan-series")
    page.wait_for_selector(".ms-answer >> text=Answer for the volume", timeout=120_000)
    page.wait_for_selector(".ms-line >> text=3 of 3 slices read")
    page.evaluate(WATCH_STATUS)
    thumbnail = page.get_attribute("#scan img", "src")
    page.focus(".mv")
    page.keyboard.press("PageDown")
    page.wait_for_function("old => document.querySelector('#scan img')?.src !== old", arg=thumbnail)
    page.wait_for_function("document.querySelector('.ms-at').innerText === '3 / 3'")
    page.evaluate("() => new Promise((done) => setTimeout(done, 300))")
    assert page.evaluate("window.spoken") == []
    assert page.locator("[role=status] button").count() == 0
    button = page.locator(".ms-show button")
    number = button.inner_text().removeprefix("Show slice ")
    button.click()
    page.wait_for_function(
        "at => document.querySelector('.ms-at').innerText === at", arg=f"{number} / 3"
    )
