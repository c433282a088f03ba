"""The app as a visitor meets it, in Chromium; a request that leaves this machine fails the test."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_maker import data_set, native
from PIL import Image
from torch import Tensor

from core.scan import read_scan, to_png, to_uint8
from demo import figures
from demo.phantom import phantom
from tests.demo.serve import REFUSAL

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "runs" / "screenshots"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (or name it with CHROMIUM=)"
    ),
]


class Served:
    """The app in a process of its own."""

    def __init__(self, tmp: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.tmp = tmp
        self.log = tmp / "server.log"
        command = [sys.executable, "-m", "tests.demo.serve", str(port), *options]
        environment = {**os.environ, "TMPDIR": str(tmp)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        for _ in range(720):
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.25)
        self.process.kill()
        self.process.wait()
        raise RuntimeError(self.log.read_text())

    @property
    def folder(self) -> Path:
        (folder,) = self.tmp.glob("medfedpure-*")
        return folder

    def kept(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"))
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens the page in a context of its own; afterwards no request may have left the machine."""
    contexts, strangers, errors = [], [], []

    def local(route: Any) -> None:
        if re.match(r"http://127\.0\.0\.1:\d+/", route.request.url):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    def open_page(url: str) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
        contexts.append(context)
        context.route(re.compile(r"^(?!data:|blob:)"), local)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#analyse")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert strangers == [] and errors == []


def drop(page: Any, data: bytes, name: str = "Jane Doe 1970.png") -> None:
    page.set_input_files(
        "#file input[type=file]", {"name": name, "mimeType": "image/png", "buffer": data}
    )


def wait_for_line(page: Any, words: str) -> None:
    page.wait_for_function(
        "words => document.querySelector('.mf-line')?.innerText.includes(words)",
        arg=words,
        timeout=180_000,
    )


def set_steps(page: Any, steps: int) -> None:
    box = page.locator("#steps input[type=number]")
    box.fill(str(steps))
    box.press("Tab")


PANELS = ["original", "attacked", "change", "error", "purified", "compare"]
READ_BACK = """([panel, width, height]) => {
  const canvas = document.querySelector(`[data-panel=${panel}] canvas`);
  const [left, top, side] = canvas.dataset.place.split(",").map(Number);
  const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const found = [];
  for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) {
    const x = Math.floor(left + (column + 0.5) * side / width);
    const y = Math.floor(top + (row + 0.5) * side / height);
    const isSeen = x >= 0 && y >= 0 && x < canvas.width && y < canvas.height;
    found.push(isSeen ? image[4 * (y * canvas.width + x)] : -1);
  }
  return found;
}"""


def read_back(page: Any, panel: str, side: int = 224) -> np.ndarray:
    """The red of each pixel of a panel's picture as drawn on its canvas; -1 outside the canvas."""
    page.mouse.move(2, 2)  # no cross over the pictures
    page.focus(".mv")
    page.keyboard.press(str(1 + PANELS.index(panel)))  # alone, and so larger
    page.evaluate("() => new Promise((done) => setTimeout(done, 200))")
    page.keyboard.press("e")  # whole screen pixels for each picture pixel
    page.evaluate("() => new Promise((done) => setTimeout(done, 200))")
    found = np.array(page.evaluate(READ_BACK, [panel, side, side]), dtype=int)
    page.keyboard.press("0")
    page.keyboard.press("Escape")
    return found.reshape(side, side)


def same(drawn: np.ndarray, levels: np.ndarray, within: int = 0) -> bool:
    """Whether a panel shows these levels, of which most are seen."""
    seen = drawn >= 0
    return bool(seen.mean() > 0.7 and (np.abs(drawn - levels)[seen] <= within).all())


def test_upload_attack_read(served: Served, visit: Callable[[str], Any], scan: Tensor) -> None:
    page = visit(served.url)
    assert page.evaluate(
        "document.body.classList.contains('dark')"
    )  # though the system prefers light
    assert "not for clinical use" in page.inner_text("#header")
    drop(page, to_png(scan))
    page.wait_for_selector("#scan img")
    page.click("#analyse")
    wait_for_line(page, "Done.")
    with page.expect_download() as download:
        page.click('a[download="attacked-scan.png"]')
    attacked = read_scan(download.value.path())
    assert 0 < (attacked - scan).abs().max() <= 0.015
    assert same(read_back(page, "original"), to_uint8(scan)[0])
    assert same(read_back(page, "attacked"), to_uint8(attacked)[0])
    change = to_uint8(attacked)[0].astype(int) - to_uint8(scan)[0]
    table = figures.diverging(np.linspace(-1, 1, 257))[:, 0].astype(int)
    gain = 20 / 255
    middle = np.floor(np.clip(change * gain, -1, 1) * 128 + 0.5).astype(int) + 128
    assert same(read_back(page, "change"), table[middle])
    assert page.locator("td[data-says]").count() == 4
    assert page.locator(".mf-stage.mf-done").count() == 5
    for text in (
        "Error map",
        "could not predict, not disease",
        "Purified",
        "Expert attention weights",
        "Final diagnosis",
    ):
        assert text in page.inner_text("#reading")
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 800), (1600, 900), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=SHOTS / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = Image.open(SHOTS / f"{width}.png").convert("L")
        assert np.asarray(picture).mean() < 90  # a dark page, not a white one
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
    """The files of a 12-bit series, and its values (S, side, side)."""
    random = np.random.default_rng(0)
    values = random.integers(0, 4096, (count, side, side), dtype=np.uint16)
    own = {"WindowCenter": 500, "WindowWidth": 400}  # and no sides, whose letters cover pixels
    files = [native(data_set(v, 12, InstanceNumber=n, **own), v) for n, v in enumerate(values)]
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
    assert same(read_back(page, "original", 64), windowed(values[2], *ends(values)), within=1)
    page.select_option(select, label="the file's own 1")
    assert same(read_back(page, "original", 64), windowed(values[2], 300, 700), within=1)
    assert "level 500, width 400" in page.inner_text(".mv-window")
    page.focus(".mv")
    page.keyboard.press("PageDown")
    page.wait_for_function("old => document.querySelector('#scan img')?.src !== old", arg=thumbnail)
    assert page.inner_text(".ms-at") == "4 / 5"
    assert same(
        read_back(page, "original", 64), windowed(values[3], 300, 700), within=1
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


def windowed(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey levels of a display window; at a tie either neighbour is right."""
    grey: np.ndarray = np.rint(
        ((values.astype(float) - low) / (high - low)).clip(0, 1) * 255
    ).astype(int)
    return grey


PLACES = "[...document.querySelectorAll('.mv canvas')].map(c => c.dataset.place)"


def test_panels_move_together(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url)
    page.click("#sample-0")
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
    page.keyboard.press("6")
    assert page.locator(".mv-panel:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".mv-panel:visible").count() == 6


def test_fingers_zoom_and_move(served: Served, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    page = context.new_page()
    page.goto(served.url)
    page.click("#sample-0")
    page.wait_for_function(f"{PLACES}[0]")
    box = page.locator("[data-panel=original] canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 100
    hand = context.new_cdp_session(page)

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
    context.close()


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
    for step, button in ((2, "detect"), (3, "purify"), (4, "vote")):
        page.click(f"#lesson-{step - 1}-next")
        page.click(f"#lesson-{button}")
        page.wait_for_selector(f"#learned-{step} .mf-say", timeout=90_000)
    page.click("#lesson-0-button")
    page.click("#look-1")  # another scan: nothing of the first one stays
    page.wait_for_selector("#learned-0 >> text=drawn without a tumour")
    page.click("#lesson-4-button")
    assert page.locator("#learned-4 img").count() == 0
    page.click("#lesson-5-button")
    assert page.is_disabled("#quiz-A")
    for done in (1, 2):
        page.click("#quiz-new")
        page.wait_for_selector("#quiz-B:enabled", timeout=90_000)
        assert page.locator("#quiz-view img").count() == 2
        page.click("#quiz-B")
        page.wait_for_selector(f"#quiz-view >> text=of {done};")
        assert page.locator("#quiz-view img").count() == 3
    page.get_by_role("tab", name="About").click()
    page.wait_for_selector(".mf-method")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert served.kept() == []


def test_an_attack_can_be_stopped(served: Served, visit: Callable[[str], Any]) -> None:
    page = visit(served.url)
    page.click("#sample-1")
    page.wait_for_selector("#scan >> text=Known failure")
    assert page.is_checked('#truth input[value="no tumour"]')  # as it was drawn
    set_steps(page, 40)
    page.locator("#aim label", has_text="the defence").click()
    page.click("#analyse")
    wait_for_line(page, "step 1 of 40")
    page.click("#stop")
    wait_for_line(page, "Stopped")
    time.sleep(2)
    assert "Stopped" in page.inner_text(".mf-line")
    page.locator("#kind label", has_text="FGSM").click()  # and the machine is free again
    page.click("#analyse")
    wait_for_line(page, "Done.")


def test_two_visitors_get_their_own_results(served: Served, visit: Callable[[str], Any]) -> None:
    scans = [phantom(5, True), phantom(6, False)]
    pages = [visit(served.url) for _ in scans]
    for page, scan in zip(pages, scans, strict=True):
        drop(page, to_png(scan))
        page.wait_for_selector("#scan img")
    for page in pages:
        page.click("#analyse")
    for page, scan in zip(pages, scans, strict=True):
        wait_for_line(page, "Done.")
        assert same(read_back(page, "original"), to_uint8(scan)[0])


def test_the_api_is_one_documented_call(served: Served, scan: Tensor, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{served.url}/gradio_api/info", timeout=10) as reply:
        assert list(json.load(reply)["named_endpoints"]) == ["/read"]
    with ThreadPoolExecutor(4) as pool:  # the same file four times at once
        answers = list(pool.map(lambda seed: call(served, to_png(scan), seed), [0, 0, 1, 1]))
    assert {answer["seed"] for answer in answers} == {0, 1}
    assert len({answer["tumour_probability"] for answer in answers[:2]}) == 1
    assert {"flagged", "score", "tau", "t_star", "attention", "timings_ms"} <= set(answers[0])
    assert "empty" in str(call(served, b"", 0)) and served.kept() == []


def call(served: Served, data: bytes, seed: int) -> Any:
    """The API by plain HTTP: upload, ask, read the stream of events."""
    boundary = "----scan"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n"
    ).encode()
    body += data + f"\r\n--{boundary}--\r\n".encode()
    (path,) = post(
        f"{served.url}/gradio_api/upload", body, f"multipart/form-data; boundary={boundary}"
    )
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    question = json.dumps({"data": [file, False, seed, 0]}).encode()
    event = post(f"{served.url}/gradio_api/call/read", question, "application/json")["event_id"]
    with urllib.request.urlopen(f"{served.url}/gradio_api/call/read/{event}", timeout=180) as reply:
        answer = json.loads(reply.read().decode().rsplit("data:", 1)[1])
    return answer[0] if isinstance(answer, list) else answer


def post(url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def test_a_path_on_the_server_is_refused(served: Served) -> None:
    file = {"path": str(ROOT / "README.md"), "meta": {"_type": "gradio.FileData"}}
    question = json.dumps({"data": [file, True, 0, 0]}).encode()
    event = post(f"{served.url}/gradio_api/call/read", question, "application/json")["event_id"]
    with urllib.request.urlopen(f"{served.url}/gradio_api/call/read/{event}", timeout=180) as reply:
        answer = reply.read().decode()
    assert "event: error" in answer and "tumour" not in answer


def test_missing_weights_are_said_and_nothing_is_read(
    visit: Callable[[str], Any], tmp_path: Path, scan: Tensor
) -> None:
    server = Served(tmp_path, "--no-weights")
    try:
        page = visit(server.url)
        assert REFUSAL in page.inner_text(".mf-banner")
        assert page.is_disabled("#analyse")
        assert page.locator("td[data-says]").count() == 0
        assert "tumour_probability" not in str(call(server, to_png(scan), 0))
        folder = server.folder
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not folder.exists()
