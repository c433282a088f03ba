"""Temporary folder for the web server's files: old files are deleted, at exit everything is."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

MAX_AGE_SECONDS = 600.0


class PrivateFolder:
    """Context manager of a folder that only this user can read, deleted on exit.

    Args:
        max_age: seconds until a file is deleted.
        interval: seconds between two sweeps.
    """

    def __init__(self, max_age: float = MAX_AGE_SECONDS, interval: float = 60.0) -> None:
        self.max_age, self.interval = max_age, interval
        self._done = threading.Event()

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="medfedpure-"))  # mode 0700
        self._sweeper = threading.Thread(target=self._sweep_repeatedly, daemon=True)
        self._sweeper.start()
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._sweeper.join()
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> int:
        """Delete files older than `max_age` and empty folders; return the number of files."""
        count = 0
        limit = time.time() - self.max_age
        for path in sorted(self.path.rglob("*"), reverse=True):  # children before their folder
            try:
                if path.stat().st_mtime > limit:
                    continue
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
                    count += 1
            except OSError:
                continue  # in use, not empty, or gone by now
        return count

    def _sweep_repeatedly(self) -> None:
        while not self._done.wait(self.interval):
            self.sweep()
