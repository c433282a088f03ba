"""Tab Explore in Chromium; a request that leaves this machine fails the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dicom_maker import build_data_set, encode_native
from PIL import Image
from torch import Tensor

from core.scan import read_scan, to_png, to_uint8
from demo.rendering import images
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    SHOTS,
    Served,
    drop,
    open_settings,
    read_back,
    same,
    wait_for_line,
    wait_for_scan,
)

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]


def test_upload_attack_read(served: Served, visit: Callable[[str], Any], scan: Tensor) -> None:
    page = visit(served.url)
    assert page.evaluate(
        "document.body.classList.contains('dark')"
    )  # though the system prefers light
    assert "not for clinical use" in page.inner_text("#header")
    drop(page, to_png(scan))
    wait_for_scan(page)
    page.click("#analyse")
    wait_for_line(page, "Done.")
    with page.expect_download() as download:
        page.click('a[download="attacked-scan.png"]')
    attacked = read_scan(download.value.path())
    assert 0 < (attacked - scan).abs().max() <= 0.015
    assert same(read_back(page, "original"), to_uint8(scan)[0])
    assert same(read_back(page, "attacked"), to_uint8(attacked)[0])
    change = to_uint8(attacked)[0].astype(int) - to_uint8(scan)[0]
    table = images.apply_diverging(np.linspace(-1, 1, 257))[:, 0].astype(int)
    gain = 20 / 255
    middle = np.floor(np.clip(change * gain, -1, 1) * 128 + 0.5).astype(int) + 128
    assert same(read_back(page, "change"), table[middle])
    assert page.locator("td[data-says]").count() == 4
    assert page.locator(".mf-stage.mf-done").count() == 5
    for text in (
        "Error map",
        "Purified",
        "Experts: shares that add up to the output",
        "Model output",
    ):
        assert text in page.inner_text("#reading")
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 800), (1600, 900), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=SHOTS / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = Image.open(SHOTS / f"{width}.png").convert("L")
        assert np.asarray(picture).mean() < 90  # a dark page, not a white one
    open_settings(page)
    page.locator("#norm label", has_text="L2").click()
    page.wait_for_selector("#main.stale .mf-stale", state="visible")
    stored = page.evaluate(
        "async () => [{...localStorage}, {...sessionStorage}, await indexedDB.databases(), "
        "document.cookie, history.state]"
    )
    words = json.dumps([stored, page.context.storage_state(), page.url])
    assert "Jane" not in words and "tumour" not in words and "base64" not in words
    page.click("#clear")
    page.wait_for_selector("text=nothing was kept on disk")
    assert page.locator("#scan img").count() == 0
    assert served.kept() == []
    assert "Jane" not in served.log.read_text()


def slices(count: int, side: int = 64) -> tuple[list[bytes], np.ndarray]:
    """Return the files of a 12-bit series, and its values (S, side, side)."""
    random = np.random.default_rng(0)
    values = random.integers(0, 4096, (count, side, side), dtype=np.uint16)
    own = {"WindowCenter": 500, "WindowWidth": 400}  # and no sides, whose letters cover pixels
    files = [
        encode_native(build_data_set(v, 12, InstanceNumber=n, **own), v)
        for n, v in enumerate(values)
    ]
    return files, values


def test_a_series_is_browsed_windowed_and_scanned(
    served: Served, visit: Callable[[str], Any]
) -> None:
    page = visit(served.url)
    files, values = slices(5)
    names = [f"Jane Doe {n}.dcm" for n in range(len(files))]
    page.set_input_files(
        "#file input[type=file]",
        [
            {"name": name, "mimeType": "application/dicom", "buffer": data}
            for name, data in zip(names, files, strict=True)
        ],
    )
    page.wait_for_selector("#scan >> text=5 slices of 64 x 64 pixels")
    page.wait_for_function("document.querySelector('.ms-at').innerText === '3 / 5'")
    thumbnail = page.get_attribute("#scan img", "src")
    select = "[data-set=preset]"
    page.select_option(select, label="full range")
    assert same(read_back(page, "original", 64), apply_window(values[2], *ends(values)), within=1)
    page.select_option(select, label="the file's own 1")
    assert same(read_back(page, "original", 64), apply_window(values[2], 300, 700), within=1)
    assert "level 500, width 400" in page.inner_text(".mv-window")
    page.focus(".mv")
    page.keyboard.press("PageDown")
    page.wait_for_function("old => document.querySelector('#scan img')?.src !== old", arg=thumbnail)
    assert page.inner_text(".ms-at") == "4 / 5"
    assert same(
        read_back(page, "original", 64), apply_window(values[3], 300, 700), within=1
    )  # the window stays
    box = page.locator("[data-panel=original] canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    middle = values[3][31:33, 31:33].flatten()
    page.wait_for_function(
        "values => values.some(v => document.querySelector('.mv-at').innerText.includes(` ${v} `))",
        arg=[int(v) for v in middle],
    )
    page.keyboard.press("Space")  # plays on, past the end
    page.wait_for_function("document.querySelector('.ms-at').innerText === '1 / 5'")
    page.keyboard.press("Space")
    page.click("#scan-series")
    page.wait_for_selector(".ms-line >> text=5 of 5 slices read", timeout=120_000)
    page.click("#clear")
    page.wait_for_selector("text=nothing was kept on disk")
    assert page.locator(".ms").is_hidden() and served.kept() == []
    assert "Jane" not in served.log.read_text()


def ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def apply_window(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the grey levels of a display window; at a tie either neighbour is right."""
    grey: np.ndarray = np.rint(
        ((values.astype(float) - low) / (high - low)).clip(0, 1) * 255
    ).astype(int)
    return grey


PLACES = (
    "[...document.querySelectorAll('.mv-panel:not([hidden]) canvas')].map(c => c.dataset.place)"
)


def test_panels_move_together(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url)
    page.click("#sample-0")
    page.wait_for_selector("#scan >> text=Synthetic")
    page.locator("#kind label", has_text="FGSM").click()
    page.click("#analyse")
    wait_for_line(page, "Done.")
    page.wait_for_function(f"new Set({PLACES}).size === 1")
    fit = page.evaluate(f"{PLACES}[0]")
    page.hover("[data-panel=error] canvas")
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"fit => {PLACES}.every(place => place !== fit)", arg=fit)
    assert page.evaluate(f"new Set({PLACES}).size") == 1
    zoomed = page.evaluate(f"{PLACES}[0]")
    page.mouse.down()
    page.mouse.move(600, 500, steps=3)
    page.mouse.up()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"old => {PLACES}.every(place => place !== old)", arg=zoomed)
    assert page.evaluate(f"new Set({PLACES}).size") == 1
    page.keyboard.press("0")
    page.wait_for_function(f"fit => {PLACES}.every(place => place === fit)", arg=fit)
    purified = read_back(page, "purified")
    page.keyboard.press("r")
    assert page.input_value("[data-set=reading]") == "clean"
    assert (read_back(page, "purified") != purified).any()
    plain = read_back(page, "attacked")
    page.keyboard.press("o")
    assert page.is_checked("[data-set=overlay]") and (read_back(page, "attacked") != plain).any()
    page.keyboard.press("?")
    page.wait_for_selector(".mv-keys >> text=error map over the scan")
    page.keyboard.press("Escape")
    page.keyboard.press("7")
    page.wait_for_selector("[data-panel=compare]", state="visible")
    assert page.locator(".mv-panel:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".mv-panel:visible").count() == 6


def test_fingers_zoom_and_move(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url, 1024, 768, touch=True)
    wait_for_line(page, "finished example")
    page.click("#sample-0")
    wait_for_line(page, "Choose a scan, then press Analyse.")  # the opening's panels have gone
    page.wait_for_function(f"{PLACES}[0]")
    box = page.locator("[data-panel=original] canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 100
    hand = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(points)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    def place() -> list[int]:
        page.evaluate("() => new Promise((done) => setTimeout(done, 200))")
        return [int(n) for n in page.evaluate(f"{PLACES}[0]").split(",")]

    fit = place()
    touch("touchStart", (x - 20, y), (x + 20, y))
    for spread in (40, 60, 80):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    pinched = place()
    assert pinched[2] == pytest.approx(4 * fit[2], rel=0.05)  # as far apart as the fingers went
    touch("touchStart", (x, y))
    for way in (10, 30, 50):
        touch("touchMove", (x + way, y))
    touch("touchEnd")
    moved = place()
    assert (moved[0] - pinched[0], moved[2]) == (50, pinched[2])


def test_a_bad_file_gets_its_sentence(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url)
    drop(page, b"no picture at all")
    page.wait_for_selector(
        "#scan [role=alert] >> text=The file is not a picture or a volume that can be read here"
    )
    page.click("#analyse")
    page.wait_for_selector("#results >> text=Drop a scan or take a synthetic example")
    assert page.locator("td[data-says]").count() == 0 and served.kept() == []


def test_a_photograph_is_read_on_request(
    served: Served, visit: Callable[[str], Any], photograph: bytes
) -> None:
    page = visit(served.url)
    drop(page, photograph)
    page.wait_for_selector("#scan [role=alert] >> text=does not look like a brain MRI")
    page.check("#insist input")
    page.wait_for_selector("#scan >> text=read as grey at your request")
    page.locator("#kind label", has_text="none").click()
    page.click("#analyse")
    wait_for_line(page, "Done, without an attack.")
    assert page.locator("td[data-says]").count() == 2
