"""In-memory cache with time, count and size limits."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class ExpiringCache(Generic[T]):
    """Thread-safe cache; drops entries `seconds` after their last use, least recently used first.

    Args:
        seconds: time from an entry's last use until it is dropped.
        count: largest number of entries.
        size: largest total in bytes; a larger entry is not stored at all.
    """

    def __init__(self, seconds: float, count: int, size: int) -> None:
        self.seconds, self.count, self.size = seconds, count, size
        self._lock = threading.Lock()
        # (last use, bytes, value), least recently used first
        self._entries: dict[str, tuple[float, int, T]] = {}
        self._timer: threading.Timer | None = None

    def put(self, key: str, value: T, size: int) -> None:
        """Store `value`, which takes `size` bytes; drop the oldest entries if there is no room."""
        with self._lock:
            self._entries.pop(key, None)
            if size <= self.size:
                self._entries[key] = (time.monotonic(), size, value)
            self._evict()

    def get(self, key: str) -> T | None:
        """Return the value stored under `key`, or None if it is gone."""
        with self._lock:
            self._evict()
            if (entry := self._entries.pop(key, None)) is None:
                return None
            self._entries[key] = (time.monotonic(), *entry[1:])
            return entry[2]

    def drop(self, key: str) -> None:
        """Drop the entry of `key`, if there is one."""
        with self._lock:
            self._entries.pop(key, None)

    def __len__(self) -> int:
        with self._lock:
            self._evict()
            return len(self._entries)

    def _evict(self) -> None:
        oldest = time.monotonic() - self.seconds
        total = sum(size for _, size, _ in self._entries.values())
        for key, (used, size, _) in list(self._entries.items()):
            if used > oldest and len(self._entries) <= self.count and total <= self.size:
                break
            del self._entries[key]
            total -= size
        if self._entries and self._timer is None:  # evicts even if nobody asks again
            self._timer = threading.Timer(self.seconds, self._evict_later)
            self._timer.daemon = True
            self._timer.start()

    def _evict_later(self) -> None:
        with self._lock:
            self._timer = None
            self._evict()
