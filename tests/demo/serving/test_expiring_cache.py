from __future__ import annotations

import time

from demo.serving.expiring_cache import ExpiringCache


def test_the_longest_unused_makes_room() -> None:
    cache: ExpiringCache[str] = ExpiringCache(seconds=60, count=2, size=100)
    cache.put("a", "A", 10)
    cache.put("b", "B", 10)
    assert cache.get("a") == "A"  # used: now b is the oldest
    cache.put("c", "C", 10)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("A", None, "C")


def test_bytes_are_bounded_and_counted_once_a_key() -> None:
    cache: ExpiringCache[str] = ExpiringCache(seconds=60, count=9, size=100)
    for _ in range(5):
        cache.put("a", "A", 60)
    cache.put("b", "B", 40)
    assert len(cache) == 2
    cache.put("c", "C", 1)
    assert cache.get("a") is None and cache.get("b") == "B"
    cache.put("huge", "H", 101)
    assert cache.get("huge") is None and cache.get("b") == "B"


def test_things_go_by_themselves() -> None:
    cache: ExpiringCache[str] = ExpiringCache(seconds=0.1, count=9, size=100)
    cache.put("a", "A", 1)
    deadline = time.monotonic() + 5
    while cache._entries and time.monotonic() < deadline:  # not asked: asking would tidy up
        time.sleep(0.02)
    assert not cache._entries


def test_what_is_dropped_is_gone() -> None:
    cache: ExpiringCache[str] = ExpiringCache(seconds=60, count=9, size=100)
    cache.put("a", "A", 1)
    cache.drop("a")
    cache.drop("a")
    assert cache.get("a") is None
