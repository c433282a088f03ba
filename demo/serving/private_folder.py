"""A private folder for what the web server puts on disk: swept while it lives, then removed."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

MAX_AGE = 600.0  # seconds


class PrivateFolder:
    """`with PrivateFolder() as path:` - readable by this user alone, gone afterwards."""

    def __init__(self, max_age: float = MAX_AGE, every: float = 60.0) -> None:
        self.max_age, self.every = max_age, every
        self._done = threading.Event()

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="medfedpure-"))  # mode 0700
        self._sweeper = threading.Thread(target=self._sweep_often, daemon=True)
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
        """Deletes files older than `max_age` seconds and folders left empty; how many files."""
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

    def _sweep_often(self) -> None:
        while not self._done.wait(self.every):
            self.sweep()
