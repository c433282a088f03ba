"""How long something takes, and how fast this machine multiplies matrices at that moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds of one call, the accelerator's queue emptied before and after."""
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return (time.perf_counter() - start) * 1e3


def summary(milliseconds: list[float]) -> dict[str, Any]:
    """Median, p95, fastest and number of measurements."""
    values = torch.tensor(milliseconds, dtype=torch.float64)
    median, p95 = torch.quantile(values, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {"median_ms": median, "p95_ms": p95, "fastest_ms": min(milliseconds), "n": len(values)}


def machine_rate(device: torch.device, side: int = 1024, repeats: int = 8) -> dict[str, Any]:
    """Rate of float32 matrix products of this side, best and median, in GFLOP/s; and the load."""
    a = torch.randn(side, side, device=device)
    times = [timed(lambda: a @ a) for _ in range(repeats + 1)][1:]
    work = 2 * side**3 / 1e6  # GFLOP/s = FLOP / 1e9 / s, with times in ms
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "best_gflops": work / min(times),
        "median_gflops": work / sorted(times)[len(times) // 2],
        "side": side,
        "load_average": load,
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
