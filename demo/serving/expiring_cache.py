"""Memory with an end: what visitors are looking at, kept for so long and only so much of it."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class ExpiringCache(Generic[T]):
    """Things by their key, forgotten `seconds` after their last use, the oldest first when full.

    Args:
        seconds: how long a thing stays that nobody asks for.
        count: how many things there may be.
        size: how many bytes they may take together; a larger thing is not kept at all.
    """

    def __init__(self, seconds: float, count: int, size: int) -> None:
        self.seconds, self.count, self.size = seconds, count, size
        self._lock = threading.Lock()
        self._things: dict[str, tuple[float, int, T]] = {}  # the longest unused comes first
        self._timer: threading.Timer | None = None

    def put(self, key: str, thing: T, size: int) -> None:
        """Keeps `thing`, which takes `size` bytes; the oldest things make room for it."""
        with self._lock:
            self._things.pop(key, None)
            if size <= self.size:
                self._things[key] = (time.monotonic(), size, thing)
            self._tidy()

    def get(self, key: str) -> T | None:
        """The thing kept under `key`, or None where it is gone."""
        with self._lock:
            self._tidy()
            if (found := self._things.pop(key, None)) is None:
                return None
            self._things[key] = (time.monotonic(), *found[1:])
            return found[2]

    def drop(self, key: str) -> None:
        """Forgets the thing kept under `key`, if there is one."""
        with self._lock:
            self._things.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            self._tidy()
            return len(self._things)

    def _tidy(self) -> None:
        oldest = time.monotonic() - self.seconds
        total = sum(size for _, size, _ in self._things.values())
        for key, (used, size, _) in list(self._things.items()):
            if used > oldest and len(self._things) <= self.count and total <= self.size:
                break
            del self._things[key]
            total -= size
        if self._things and self._timer is None:  # things go though nobody comes
            self._timer = threading.Timer(self.seconds, self._later)
            self._timer.daemon = True
            self._timer.start()

    def _later(self) -> None:
        with self._lock:
            self._timer = None
            self._tidy()
