"""Reading as a stream: the name of each stage as it starts, then the Diagnosis."""

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

STAGES = ("detect", "purify", "classify")
_worker = ThreadPoolExecutor(1, thread_name_prefix="reading")  # one reading at a time


def stream_reading(system: MedFedPure, scan: Tensor, seed: int) -> Iterator[str | Diagnosis]:
    """Read a scan (1, 224, 224) in a worker thread; yield each stage's name as it starts.

    Forward hooks on detector and purifier report that each has finished. Errors of the reading are
    raised here.
    """
    finished_stages: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def run() -> Diagnosis:
        hooks = [
            system.detector.register_forward_hook(_make_hook(finished_stages, "purify")),
            system.purifier.register_forward_hook(_make_hook(finished_stages, "classify")),
        ]
        try:
            return system.read(scan, seed)
        finally:
            for hook in hooks:
                hook.remove()
            finished_stages.put(None)

    yield STAGES[0]
    future = _worker.submit(run)
    while (stage := finished_stages.get()) is not None:
        yield stage
    yield future.result()


def _make_hook(finished_stages: queue.SimpleQueue[str | None], stage: str) -> Callable[..., None]:
    thread = threading.get_ident()  # an attack may call the same modules from another thread

    def hook(*_: Any) -> None:
        if threading.get_ident() == thread:
            finished_stages.put(stage)

    return hook
