"""Flower's SuperLink and commands as subprocesses: start, submit a run, wait for its end."""

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

from train.federated.experiment import FederationError
from train.federated.server.run_state import RESULT

APP = Path(__file__).parents[3]
# settings that the server needs; folders come from each node's config
RUN_KEYS = ("preset", "protocol", "seed", "phase", "out", "resume", "start")
START_SECONDS = 120.0
LOG_SECONDS = 1.0  # between looks at the run's log
# between questions for the run's status, each a Python process: first, and at most
STATUS_SECONDS, MAX_STATUS_SECONDS = 5.0, 30.0
# Flower reports runs to its maker and asks for updates unless these are set
NO_TELEMETRY = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class SuperLink:
    """SuperLink named in Flower's config.toml under `home` (default: the user's)."""

    def __init__(self, name: str, home: Path | None = None) -> None:
        self.name = name
        self.environment = build_environment()
        if home:
            self.environment["FLWR_HOME"] = str(home)

    def run(self, settings: Mapping[str, Any], federation: str = "") -> None:
        """Submit the app and print each round's line until the run has ended.

        Raises:
            FederationError: the run did not end well.
        """
        if not (APP / "pyproject.toml").is_file():
            raise ValueError("engines other than in-process need a checkout of the project")
        words = " ".join(f"{k}={json.dumps(v)}" for k, v in settings.items())
        options = ["--run-config", words]
        options += ["--federation-config", federation] if federation else []
        out = Path(settings["out"])
        log, before = out / "log.jsonl", _read_time(out / RESULT)
        seen, pause = len(_read_lines(log)), STATUS_SECONDS
        run = self.run_flwr("run", str(APP), self.name, *options)["run-id"]
        asked, status = time.monotonic(), ""
        try:
            while not status.startswith("finished"):
                time.sleep(LOG_SECONDS)
                has_result = _read_time(out / RESULT) != before
                if has_result or time.monotonic() > asked + pause:
                    status = self._read_status(run)
                    asked, pause = time.monotonic(), min(2 * pause, MAX_STATUS_SECONDS)
                lines = _read_lines(log)
                for line in lines[seen:]:
                    sys.stderr.write(_format_line(line) + "\n")
                seen = len(lines)
        except KeyboardInterrupt:
            self.run_flwr("stop", run, self.name)
            raise
        if status != "finished:completed":
            raise FederationError(f"run {run} ended as {status}: {self._read_log_end(run, log)}")

    def run_flwr(self, *words: str) -> dict[str, Any]:
        """Run one `flwr` command and return its JSON.

        Raises:
            FederationError: the command failed; the message is the command's own.
        """
        done = subprocess.run(
            [find_program("flwr"), *words, "--format", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            reply: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            reply = {}
        if done.returncode or not reply.get("success"):
            reason = reply.get("error-message") or done.stderr.strip() or done.stdout.strip()
            raise FederationError(f"flwr {words[0]}: {reason}")
        return reply

    def _read_log_end(self, run: str, log: Path) -> str:
        """Write the run's own log beside ours and return its last lines."""
        command = [find_program("flwr"), "log", run, self.name, "--show"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        copy = log.with_name("run.log")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(done.stdout + done.stderr, encoding="utf-8")
        return f"{' / '.join(done.stdout.strip().splitlines()[-3:])} (full log: {copy})"

    def _read_status(self, run: str) -> str:
        runs = self.run_flwr("ls", self.name, "--run-id", run)["runs"]
        return str(runs[0]["status"]) if runs else "unknown"


def build_environment() -> dict[str, str]:
    """Return this process' environment with Flower's programs in PATH."""
    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def run_processes(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], logs: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run Flower's programs, each with a log of its name; stops them on exit."""
    started: dict[str, subprocess.Popen[bytes]] = {}
    logs.mkdir(parents=True, exist_ok=True)
    try:
        for name, words in commands.items():
            with (logs / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    [find_program(words[0]), *words[1:]],
                    env=dict(environment),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        yield started
    finally:
        for process in reversed(started.values()):
            stop_process(process)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process listens on the port.

    Raises:
        FederationError: the process ended, or no process listens after two minutes.
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


def find_free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(home: Path, name: str, address: str, root_certificate: Path | None) -> None:
    """Write Flower's config.toml with one connection."""
    trust = f'root-certificates = "{root_certificate}"' if root_certificate else "insecure = true"
    home.mkdir(parents=True, exist_ok=True)
    text = (
        f'[superlink]\ndefault = "{name}"\n\n[superlink.{name}]\naddress = "{address}"\n{trust}\n'
    )
    (home / "config.toml").write_text(text, encoding="utf-8")


def find_program(name: str) -> str:
    """Return the path of one of Flower's programs.

    Raises:
        FederationError: it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise FederationError(f"{name} is not installed: pip install '.[federated]'")
    return found


def stop_process(process: subprocess.Popen[Any]) -> None:
    """Terminate a process; kill it after twenty seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def _read_time(path: Path) -> int:
    """Return when a file was written; 0 without one."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _format_line(line: str) -> str:
    from train.federated import metrics

    entry = json.loads(line)
    return metrics.format_round(entry["round"], entry["of"], entry)
