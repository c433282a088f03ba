from __future__ import annotations

import time

from demo.serving.expiring_cache import Shelf


def test_the_longest_unused_makes_room() -> None:
    shelf: Shelf[str] = Shelf(seconds=60, count=2, size=100)
    shelf.put("a", "A", 10)
    shelf.put("b", "B", 10)
    assert shelf.get("a") == "A"  # used: now b is the oldest
    shelf.put("c", "C", 10)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == ("A", None, "C")


def test_bytes_are_bounded_and_counted_once_a_key() -> None:
    shelf: Shelf[str] = Shelf(seconds=60, count=9, size=100)
    for _ in range(5):
        shelf.put("a", "A", 60)
    shelf.put("b", "B", 40)
    assert len(shelf) == 2
    shelf.put("c", "C", 1)
    assert shelf.get("a") is None and shelf.get("b") == "B"
    shelf.put("huge", "H", 101)
    assert shelf.get("huge") is None and shelf.get("b") == "B"


def test_things_go_by_themselves() -> None:
    shelf: Shelf[str] = Shelf(seconds=0.1, count=9, size=100)
    shelf.put("a", "A", 1)
    deadline = time.monotonic() + 5
    while shelf._things and time.monotonic() < deadline:  # not asked: asking would tidy up
        time.sleep(0.02)
    assert not shelf._things


def test_what_is_dropped_is_gone() -> None:
    shelf: Shelf[str] = Shelf(seconds=60, count=9, size=100)
    shelf.put("a", "A", 1)
    shelf.drop("a")
    shelf.drop("a")
    assert shelf.get("a") is None
