"""The app as users start it: seconds until its first page, and peak memory while it reads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.provenance import ROOT

APP = ("app.py", "--no-browser", "--port")  # the port follows
PATIENCE = 180.0  # seconds


class StartError(RuntimeError):
    """The app did not come up, or did not answer."""


@dataclass(frozen=True)
class Running:
    """The app in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    first_page_s: float


@contextmanager
def run_app(app: Sequence[str] = APP, **environment: str) -> Iterator[Running]:
    """Starts the app, waits for its page, and stops it at the end as SIGTERM does.

    Raises:
        StartError: the app ended, or showed no page in time; what it said last is told.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *app, str(port)],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        try:
            _wait_for_page(process, url, start)
            yield Running(url, process, time.monotonic() - start)
        except StartError as error:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
            raise StartError(f"{error}: {said[-1] if said else 'it said nothing'}") from None
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measure_app(files: Sequence[bytes], app: Sequence[str] = APP) -> dict[str, Any]:
    """Reads the scans through the API of an app that is started for it.

    Raises:
        StartError: the app ended, showed no page in time, or could not read a scan.
    """
    with run_app(app) as served:
        idle = peak_memory(served.process.pid)
        read = open_client(served.url)
        for data in files:
            read(data)
        peak = peak_memory(served.process.pid)
    return {
        "first_page_s": served.first_page_s,
        "peak_idle_mb": idle,
        "peak_reading_mb": peak,
        "reads": len(files),
    }


def open_client(url: str) -> Callable[[bytes], dict[str, Any]]:
    """Opens a session with the public endpoint; returns a function of a file's bytes.

    Raises:
        StartError: (the function) the app could not read the scan.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False, analytics_enabled=False)

    def ask(data: bytes) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(data)
            file.flush()
            try:
                answer: dict[str, Any] = client.predict(
                    handle_file(file.name), False, 0, api_name="/read"
                )
            except Exception as error:  # the client raises whatever the app answered
                raise StartError(f"the app could not read a scan ({error})") from error
        return answer

    return ask


def peak_memory(pid: int, field: str = "VmHWM") -> float | None:
    """Returns the peak resident memory of a process in MB (`VmRSS`: now); None outside Linux."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return None


def _wait_for_page(process: subprocess.Popen[bytes], url: str, start: float) -> None:
    while time.monotonic() - start < PATIENCE:
        if process.poll() is not None:
            raise StartError(f"the app ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if answer.status == 200 and answer.read():
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise StartError(f"no page within {PATIENCE:.0f} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
