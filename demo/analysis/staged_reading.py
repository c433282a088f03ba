"""A reading as a stream: the name of each stage as it starts, then the Diagnosis."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure

DEFENCE = ("detect", "purify", "classify")
_worker = ThreadPoolExecutor(1, thread_name_prefix="reading")  # one reading at a time


def stream_reading(system: MedFedPure, scan: Tensor, seed: int) -> Iterator[str | Diagnosis]:
    """Reads a scan (1, 224, 224) in a worker thread; yields each stage's name as it starts.

    The reading itself knows nothing of being watched: hooks on the detector and the purifier tell
    that each has finished. Whatever the reading raises is raised here.
    """
    news: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def run() -> Diagnosis:
        hooks = [
            system.detector.register_forward_hook(_tell(news, "purify")),
            system.purifier.register_forward_hook(_tell(news, "classify")),
        ]
        try:
            return system.read(scan, seed)
        finally:
            for hook in hooks:
                hook.remove()
            news.put(None)

    yield DEFENCE[0]
    future = _worker.submit(run)
    while (stage := news.get()) is not None:
        yield stage
    yield future.result()


def _tell(news: queue.SimpleQueue[str | None], stage: str) -> Callable[..., None]:
    watched = threading.get_ident()  # an attack may call the same modules from another thread

    def hook(*_: Any) -> None:
        if threading.get_ident() == watched:
            news.put(stage)

    return hook
