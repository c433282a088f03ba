"""The app as a visitor meets it, in Chromium; a request that leaves this machine fails the test."""

from __future__ import annotations

import base64
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
import torch
from PIL import Image
from torch import Tensor

from core.scan import read_scan, to_png
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


def shown(page: Any, panel: str) -> Tensor:
    """The pixels of one panel's picture, as a scan."""
    url = page.get_attribute(f'[data-panel="{panel}"] img', "src")
    return read_scan(base64.b64decode(url.split(",")[1]))


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
    assert torch.equal(shown(page, "Original"), scan)
    attacked = shown(page, "Attacked")
    assert 0 < (attacked - scan).abs().max() <= 0.015
    assert page.locator("td[data-says]").count() == 4
    assert page.locator(".mf-stage.mf-done").count() == 5
    for text in (
        "MAE reconstruction error",
        "Purified",
        "Expert attention weights",
        "Final diagnosis",
    ):
        assert text in page.inner_text("#results")
    with page.expect_download() as download:
        page.click('a[download="attacked-scan.png"]')
    assert torch.equal(read_scan(download.value.path()), attacked)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 800), (1600, 900), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=SHOTS / f"{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = Image.open(SHOTS / f"{width}.png").convert("L")
        assert np.asarray(picture).mean() < 90  # a dark page, not a white one
    page.locator("#norm label", has_text="L2").click()
    page.wait_for_selector("#results.stale .mf-stale", state="visible")
    page.click("#clear")
    page.wait_for_selector("text=nothing was kept on disk")
    assert page.locator("#scan img").count() == 0
    assert served.kept() == []
    assert "Jane" not in served.log.read_text()


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
        assert torch.equal(shown(page, "Original"), scan)


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
