"""A progress bar on stderr: tqdm's where it is installed, a plain counter elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T", covariant=True)


class Steps(Sized, Iterable[T], Protocol[T]):
    """Items whose number is known."""


def progress(items: Steps[T], label: str) -> Iterator[T]:
    """The items, one after another, with the share done and the time left shown on stderr."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _counted(items, label)
    return iter(tqdm(items, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True))


def _counted(items: Steps[T], label: str) -> Iterator[T]:
    total, start = len(items), time.monotonic()
    for done, item in enumerate(items):
        elapsed = time.monotonic() - start
        left = f", {elapsed / done * (total - done):.0f} s left" if done else ""
        print(f"\r{label}: {done}/{total}{left}    ", end="", file=sys.stderr, flush=True)
        yield item
    print(f"\r{label}: {total}/{total}          ", file=sys.stderr)


def say(message: str) -> None:
    """One line for whoever watches."""
    print(message, file=sys.stderr, flush=True)
