"""Progress on stderr, and batches of a fold in parallel threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from tqdm import tqdm

from train.data.dataset import Batch, ScanDataset

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True)
class ParallelBatches:
    """Threads, which share the networks: PyTorch computes outside the interpreter's lock.

    With as many workers as there are cores and one thread each (--threads 1), small networks run
    faster than with many threads on one batch.
    """

    device: torch.device
    batch_size: int = 16
    workers: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 1:
            raise ValueError(f"batch size and workers must be 1 or more, got {self}")

    def map(self, fn: Callable[[Batch], T], fold: ScanDataset, label: str) -> Iterator[T]:
        """Apply `fn` to every batch of the fold, in order, with progress shown."""
        batches = fold.batches(self.batch_size, self.device)
        if self.workers == 1:
            for batch in progress(batches, label):
                yield fn(batch)
            return

        def run(index: int) -> T:
            return fn(batches[index])

        pool = ThreadPoolExecutor(self.workers)
        try:
            futures = [pool.submit(run, index) for index in range(len(batches))]
            for future in progress(futures, label):
                yield future.result()
        finally:  # stopped: what has not begun is not begun
            pool.shutdown(cancel_futures=True)


def progress(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Yields the items; shows the share done and the time left on stderr."""
    return iter(tqdm(items, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True))


def say(message: str) -> None:
    """Prints one line on stderr."""
    print(message, file=sys.stderr, flush=True)
