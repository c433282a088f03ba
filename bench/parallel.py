"""Batches of a fold side by side: where they are worked on, how large, how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from bench.progress import progress
from train.data.dataset import Batch, ScanDataset

T = TypeVar("T")


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
        pool = ThreadPoolExecutor(self.workers)
        try:
            futures = [pool.submit(lambda i=i: fn(batches[i])) for i in range(len(batches))]
            for future in progress(futures, label):
                yield future.result()
        finally:  # stopped: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
