"""Progress of a training: a bar on a terminal, a line every half minute elsewhere, a JSON log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

WIDTH = 28
QUIET_SECONDS = 30.0


class Progress:
    """Draws `step of total` with the live loss and the time left; `report` prints above it."""

    def __init__(self, title: str, log: Path | None = None) -> None:
        self.title = title
        self.log = log
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._first: int | None = None
        self._shown = 0.0
        self._loss = 0.0

    def __call__(self, step: int, total: int, loss: float) -> None:
        """Called after every step."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._start, self._loss = step - 1, now, loss
        self._loss = 0.95 * self._loss + 0.05 * loss
        if now - self._shown < (0.2 if self._is_terminal else QUIET_SECONDS) and step < total:
            return
        self._shown = now
        left = (now - self._start) / max(step - self._first, 1) * (total - step)
        filled = WIDTH * step // total
        bar = "#" * filled + "." * (WIDTH - filled)
        line = f"{self.title} [{bar}] {step}/{total}  loss {self._loss:.4f}  {_clock(left)} left"
        sys.stderr.write(f"\r{line}\x1b[K" if self._is_terminal else line + "\n")
        if step >= total and self._is_terminal:
            sys.stderr.write("\n")
        sys.stderr.flush()

    def report(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
        sys.stderr.write(f"{self.title}: {line}\n")
        sys.stderr.flush()

    def write(self, **facts: Any) -> None:
        """Adds a line to the JSON log."""
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"phase": self.title, "time": round(time.time()), **facts}) + "\n"
                )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"
