"""Progress of a training: a bar on a terminal, else a line every half minute; and a JSON log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

BAR_WIDTH = 28  # characters
QUIET_SECONDS = 30.0


class Progress:
    """Progress bar with loss and remaining time; `report` prints above it."""

    def __init__(self, title: str, log: Path | None = None) -> None:
        self.title = title
        self.log = log
        self._is_terminal = sys.stderr.isatty()
        self._start = time.monotonic()
        self._first: int | None = None
        self._shown = 0.0
        self._loss = 0.0

    def __call__(self, step: int, total: int, loss: float) -> None:
        """Show the progress after a step."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._start, self._loss = step - 1, now, loss
        self._loss = 0.95 * self._loss + 0.05 * loss
        if now - self._shown < (0.2 if self._is_terminal else QUIET_SECONDS) and step < total:
            return
        self._shown = now
        left = (now - self._start) / max(step - self._first, 1) * (total - step)
        filled = BAR_WIDTH * step // total
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        line = f"{self.title} [{bar}] {step}/{total}  loss {self._loss:.4f}  {_format(left)} left"
        sys.stderr.write(f"\r{line}\x1b[K" if self._is_terminal else line + "\n")
        if step >= total and self._is_terminal:
            sys.stderr.write("\n")
        sys.stderr.flush()

    def report(self, line: str) -> None:
        """Print a line above the bar."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
        sys.stderr.write(f"{self.title}: {line}\n")
        sys.stderr.flush()

    def write(self, **facts: Any) -> None:
        """Append a line to the JSON log."""
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"phase": self.title, "time": round(time.time()), **facts}) + "\n"
                )


def _format(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"
