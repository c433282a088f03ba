"""Flower's processes: started with their own home and ports, queried for a run's outcome."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from train.federated.server.server_app import FederationError

APP = Path(__file__).parents[3]
# of a run's settings, what the server needs; places are each node's own
RUN_KEYS = ("preset", "protocol", "seed", "phase", "out", "resume", "start")
START_SECONDS = 120.0
POLL = 10.0  # seconds; each look starts a Python


class Link:
    """A SuperLink by the name it has in Flower's config.toml under `home` (default: the user's)."""

    def __init__(self, name: str, home: Path | None = None) -> None:
        self.name = name
        self.environment = environment()
        if home:
            self.environment["FLWR_HOME"] = str(home)

    def run(self, settings: Mapping[str, Any], federation: str = "") -> None:
        """Submits the app and waits until the run has ended, showing the rounds' lines.

        Raises:
            FederationError: the run did not end well.
        """
        if not (APP / "pyproject.toml").is_file():
            raise ValueError("engines other than in-process need a checkout of the project")
        words = " ".join(f"{k}={json.dumps(v)}" for k, v in settings.items())
        options = ["--run-config", words]
        options += ["--federation-config", federation] if federation else []
        run = self.flwr("run", str(APP), self.name, *options)["run-id"]
        log, seen = Path(settings["out"]) / "log.jsonl", 0
        seen = len(_lines(log))
        try:
            while True:
                status, lines = self._status(run), _lines(log)
                for line in lines[seen:]:
                    sys.stderr.write(_shown(line) + "\n")
                seen = len(lines)
                if status.startswith("finished"):
                    break
                time.sleep(POLL)
        except KeyboardInterrupt:
            self.flwr("stop", run, self.name)
            raise
        if status != "finished:completed":
            raise FederationError(f"run {run} ended as {status}: {self._last_words(run, log)}")

    def flwr(self, *words: str) -> dict[str, Any]:
        """One command of Flower's, its JSON.

        Raises:
            FederationError: the command failed; its own words say why.
        """
        done = subprocess.run(
            [program("flwr"), *words, "--format", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            found = {}
        if done.returncode or not found.get("success"):
            reason = found.get("error-message") or done.stderr.strip() or done.stdout.strip()
            raise FederationError(f"flwr {words[0]}: {reason}")
        return found

    def _last_words(self, run: str, log: Path) -> str:
        """Return the end of the run's log, which is kept beside ours."""
        command = [program("flwr"), "log", run, self.name, "--show"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        kept = log.with_name("run.log")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(done.stdout + done.stderr, encoding="utf-8")
        return f"{' / '.join(done.stdout.strip().splitlines()[-3:])} (all of it: {kept})"

    def _status(self, run: str) -> str:
        runs = self.flwr("ls", self.name, "--run-id", run)["runs"]
        return str(runs[0]["status"]) if runs else "unknown"


def environment() -> dict[str, str]:
    """Return this process' environment, in which Flower's programs find each other."""
    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def processes(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], logs: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Starts programs of Flower's, each with a log of its name, and stops what it started."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    logs.mkdir(parents=True, exist_ok=True)
    try:
        for name, words in commands.items():
            with (logs / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    [program(words[0]), *words[1:]],
                    env=dict(environment),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        yield started
    finally:
        for process in reversed(started.values()):
            stop(process)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once something listens on the port.

    Raises:
        FederationError: the process ended, or nothing listens after two minutes.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise FederationError(f"the SuperLink does not listen on port {port}: {' / '.join(last)}")


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(home: Path, name: str, address: str, root_certificate: Path | None) -> None:
    """Flower's config.toml with one connection."""
    trust = f'root-certificates = "{root_certificate}"' if root_certificate else "insecure = true"
    home.mkdir(parents=True, exist_ok=True)
    text = (
        f'[superlink]\ndefault = "{name}"\n\n[superlink.{name}]\naddress = "{address}"\n{trust}\n'
    )
    (home / "config.toml").write_text(text, encoding="utf-8")


def program(name: str) -> str:
    """Return the path of one of Flower's programs.

    Raises:
        FederationError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise FederationError(f"{name} is not installed: pip install '.[federated]'")
    return found


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a process, by force after twenty seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def _shown(line: str) -> str:
    from train.federated import metrics

    entry = json.loads(line)
    return metrics.line(entry["round"], entry["of"], entry)
