"""Helpers of the browser tests: the app in its own process, and a visitor's actions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.app.browser import CHROMIUM

ROOT = Path(__file__).resolve().parents[3]
SHOTS = ROOT / "runs" / "screenshots"
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (or name it with CHROMIUM=)"
    ),
]


class Served:
    """App in a process of its own."""

    def __init__(self, tmp: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.tmp = tmp
        self.log = tmp / "server.log"
        command = [sys.executable, "-m", "tests.demo.browser.serve", str(port), *options]
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
        assert self.process.wait(20) == 0, self.log.read_text()


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


def open_settings(page: Any) -> None:
    """Unfold the settings that are not needed at first."""
    page.click("#more > button")
    page.wait_for_selector("#steps", state="visible")


def wait_for_scan(page: Any) -> None:
    """Wait until the dropped file is the chosen scan, in place of the example."""
    page.wait_for_selector("#scan >> text=Scan loaded")


def set_steps(page: Any, steps: int) -> None:
    box, slider = (page.locator(f"#steps input[type={kind}]") for kind in ("number", "range"))
    for _ in range(5):  # settings that have just been unfolded may still be drawn anew
        box.fill(str(steps))
        box.press("Tab")
        page.wait_for_timeout(500)
        if slider.input_value() == box.input_value() == str(steps):
            return
    raise AssertionError(f"the page did not take {steps} steps")


PANELS = ["original", "attacked", "purified", "change", "error", "evidence", "compare"]
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
    """Return the red of each pixel of a panel as drawn on its canvas; -1 outside the canvas."""
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
    """Return True if a panel shows these levels and most of them are visible."""
    seen = drawn >= 0
    return bool(seen.mean() > 0.7 and (np.abs(drawn - levels)[seen] <= within).all())


def call_api(served: Served, data: bytes, *inputs: Any) -> Any:
    """Call the API by plain HTTP: upload, request, read the stream of events.

    `inputs` are those after the file, by their place.
    """
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
    question = json.dumps({"data": [file, *inputs]}).encode()
    event = post(f"{served.url}/gradio_api/call/read", question, "application/json")["event_id"]
    with urllib.request.urlopen(f"{served.url}/gradio_api/call/read/{event}", timeout=180) as reply:
        answer = json.loads(reply.read().decode().rsplit("data:", 1)[1])
    return answer[0] if isinstance(answer, list) else answer


def post(url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)
