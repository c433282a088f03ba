"""Latency as deployed and warm: reading, attacking, analysing, volumes; alone and beside others."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import markdown as md
from bench import options
from bench.app.server import measure_app
from bench.parallel import progress
from bench.provenance import machine_facts
from bench.result_file import ResultFile
from core.__main__ import Slice, read_ahead
from core.attacks import adaptive_logits, paper_attack
from core.pipeline import MedFedPure, build
from core.purifier import POLICIES
from core.scan import read_scan, to_png
from train.config import read_preset
from train.data.dataset import ScanDataset

HELP = "speed, start of the app and peak memory"
WARM_UP = 3
SLICES = 48  # of a volume
BUSY = 2  # processes beside the measured one, as on a shared machine of two cores
BESIDE = f", beside {BUSY} busy processes"
A0_8BIT = paper_attack(eight_bit=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    options.add_system(parser)
    parser.set_defaults(threads=2)
    add = parser.add_argument
    add("--repeats", type=int, default=24, help="scans that are timed")
    add("--peer", default="paper", help="preset to compare with, random weights; '' for none")
    add("--peer-repeats", type=int, default=5, help="scans that the peer reads")
    add("--no-app", action="store_true", help="do not start the app")


def run(args: argparse.Namespace) -> None:
    """Measures speed and memory; here the machine decides the figures."""
    system = options.open_system(args)
    system = system._replace(pipeline=system.pipeline.with_options(policy=POLICIES[0]))
    system.identity["timed_on"] = machine_facts(system.pipeline.device)
    store, test = options.open_results(args, system), options.open_fold(args)
    measure(
        store, system.pipeline, test,
        repeats=args.repeats, peer=args.peer, peer_repeats=args.peer_repeats,
    )  # fmt: skip
    if not args.no_app:
        files = make_files(system.pipeline, test, 5)
        store.row("app", lambda: measure_app(files))
    store.close()


def measure(
    store: ResultFile,
    pipeline: MedFedPure,
    test: ScanDataset,
    *,
    repeats: int = 24,
    peer: str = "paper",
    peer_repeats: int = 5,
) -> None:
    """Fills `store`: the machine's rate, reading, the peer preset as a ratio, and the attacks."""
    device = pipeline.device
    store.row("machine", lambda: measure_machine(device))
    files = make_files(pipeline, test, repeats, flagged=True)
    if not files:
        store.warn("no attacked scan was flagged: reading was timed on attacked scans all the same")
        files = make_files(pipeline, test, repeats)
    store.row("read", lambda: measure_reading(pipeline, files))
    if peer:
        store.row(f"{peer} preset", lambda: compare_preset(pipeline, peer, files[:peer_repeats]))
    scans = [read_scan(data) for data in files]
    store.row(
        "PGD-7, classifier", lambda: measure_attack(pipeline.classifier_logits, scans, device)
    )
    whole = adaptive_logits(pipeline.with_options(policy="floor"), itertools.count(1))
    store.row("PGD-7, knows the defence", lambda: measure_attack(whole, scans, device))
    for busy in (0, BUSY):
        for name, measure_one in (("analysis", measure_analysis), ("volume", measure_volume)):
            call = partial(measure_one, pipeline, scans)
            store.row(f"{name}{BESIDE if busy else ''}", partial(measure_beside, busy, call))
    store.row("machine, after", lambda: measure_machine(device))
    before, after = (store.content["rows"][n]["best_gflops"] for n in ("machine", "machine, after"))
    if not 0.7 < before / after < 1.4:
        store.warn("the machine's speed changed during the run: trust ratios, not milliseconds")


def make_files(
    pipeline: MedFedPure, fold: ScanDataset, count: int, flagged: bool = False
) -> list[bytes]:
    """Returns at most `count` PNG files of scans under the paper's attack on the plain classifier.

    With `flagged` those alone that the detector flags, sought among `4 * count` scans.
    """
    files: list[bytes] = []
    scans = fold.thin(4 * count if flagged else count)
    for x, y, seeds in progress(scans.batches(8, pipeline.device), "attacked scans"):
        x_adv = A0_8BIT(pipeline.plain_logits, x, y, seeds)
        kept = pipeline.score(pipeline.detect(x_adv)) > pipeline.tau if flagged else [True] * len(x)
        files += [to_png(scan) for scan, keep in zip(x_adv, kept, strict=True) if keep]
        if len(files) >= count:
            break
    return files[:count]


def measure_reading(pipeline: MedFedPure, files: Sequence[bytes]) -> dict[str, Any]:
    """Returns the time from file to Diagnosis, and the medians of its stages."""
    stages: dict[str, list[float]] = {}

    def read(data: bytes) -> None:
        for name, took in pipeline.read(read_scan(data)).timings_ms.items():
            stages.setdefault(name, []).append(took)

    for data in files[:WARM_UP]:
        read(data)
    stages.clear()
    times = [time_call(partial(read, data)) for data in progress(files, "reading")]
    return {
        **summarize(times),
        "stages_median_ms": {n: summarize(t)["median_ms"] for n, t in stages.items()},
    }


def compare_preset(pipeline: MedFedPure, preset: str, files: Sequence[bytes]) -> dict[str, Any]:
    """Returns times of another preset on the same files: random weights, every scan flagged."""
    torch.manual_seed(0)
    peer = build(read_preset(preset).system).to(pipeline.device)
    peer.detector.thresholds.fill_(-1e6)  # untrained, it has none
    times = [
        [time_call(partial(_read_file, s, data)) for s in (pipeline, peer)]
        for data in progress([files[0], *files], f"{preset} preset")
    ][1:]  # the first warms up
    mine, others = (summarize(list(column)) for column in zip(*times, strict=True))
    ratio = others["median_ms"] / mine["median_ms"]
    return {"own": mine, "peer": others, "preset": preset, "ratio": ratio}


def _read_file(pipeline: MedFedPure, data: bytes) -> None:
    pipeline.read(read_scan(data))


def measure_attack(
    logits: Callable[[Tensor], Tensor], scans: Sequence[Tensor], device: torch.device
) -> dict[str, Any]:
    """Returns times of PGD-7 on single scans, away from their predicted class."""

    def once(scan: Tensor) -> None:
        x = scan[None].to(device)
        with torch.no_grad():
            y = logits(x).argmax(1)
        A0_8BIT(logits, x, y)

    once(scans[0])
    return summarize([time_call(partial(once, scan)) for scan in progress(scans, "PGD-7")])


def measure_analysis(pipeline: MedFedPure, scans: Sequence[Tensor]) -> dict[str, Any]:
    """Returns times of a reading, which is the page's first result, PGD-7 and another reading."""

    def once(scan: Tensor) -> None:
        start = time.perf_counter()
        y = torch.tensor([int(pipeline.read(scan).is_tumour)], device=pipeline.device)
        firsts.append((time.perf_counter() - start) * 1e3)
        x_adv = A0_8BIT(pipeline.classifier_logits, scan[None].to(pipeline.device), y)
        pipeline.read(x_adv[0])

    firsts: list[float] = []
    once(scans[0])
    times = [time_call(partial(once, scan)) for scan in progress(scans, "analyses")]
    return {**summarize(times), "first_median_ms": summarize(firsts[1:])["median_ms"]}


def measure_volume(pipeline: MedFedPure, scans: Sequence[Tensor]) -> dict[str, Any]:
    """Returns times of a slice of a volume of `SLICES`, read as the command line reads it."""
    slices: list[Slice] = [({}, scans[i % len(scans)]) for i in range(SLICES)]
    args = argparse.Namespace(slice="all", seed=0)
    runs = progress(range(WARM_UP + 1), "volumes")
    times = [time_call(lambda: [*read_ahead(pipeline, iter(slices), None, args)]) for _ in runs]
    return {**summarize([ms / SLICES for ms in times[1:]]), "slices": SLICES}


def measure_beside(busy: int, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns a measurement beside `busy` processes that use a core each, and the load before."""
    load = measure_load()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        return {**call(), "busy_processes": busy, "load_average": load}
    finally:
        for process in others:
            process.kill()
            process.wait()


def measure_load() -> float | None:
    """Returns the machine's load average over a minute; None on Windows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def time_call(call: Callable[[], Any]) -> float:
    """Returns the milliseconds of one call, the accelerator's queue emptied before and after."""
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return (time.perf_counter() - start) * 1e3


def summarize(milliseconds: list[float]) -> dict[str, Any]:
    """Returns median, p95, fastest and number of measurements."""
    values = torch.tensor(milliseconds, dtype=torch.float64)
    median, p95 = torch.quantile(values, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {"median_ms": median, "p95_ms": p95, "fastest_ms": min(milliseconds), "n": len(values)}


def measure_machine(device: torch.device, side: int = 1024, repeats: int = 8) -> dict[str, Any]:
    """Returns the best and median rate of float32 matrix products in GFLOP/s, and the load."""
    a = torch.randn(side, side, device=device)
    times = [time_call(lambda: a @ a) for _ in range(repeats + 1)][1:]
    work = 2 * side**3 / 1e6  # GFLOP/s = FLOP / 1e9 / s, with times in ms
    return {
        "best_gflops": work / min(times),
        "median_gflops": work / sorted(times)[len(times) // 2],
        "side": side,
        "load_average": measure_load(),
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def table(results: md.Results) -> str:
    """Renders times of single scans."""
    parts = []
    for result in md.results_of(results, "latency", md.PROTOCOLS).values():
        rows, lines = result["rows"], []
        for name, label in (
            ("read", "flagged file to Diagnosis"),
            ("PGD-7, classifier", "PGD-7 on the classifier"),
            ("PGD-7, knows the defence", "PGD-7 through detector, purifier and mixture"),
            ("analysis", "reading, PGD-7, reading"),
            (f"analysis{BESIDE}", f"the same{BESIDE}"),
            ("volume", "slice of a volume, in batches"),
            (f"volume{BESIDE}", f"the same{BESIDE}"),
        ):
            if name in rows:
                row = rows[name]
                times = [f"{row[k] / 1e3:.2f} s" for k in ("median_ms", "p95_ms")]
                first = row.get("first_median_ms")
                after = f", first result {first / 1e3:.2f} s" if first else ""
                lines.append([label, " / ".join(times) + f" (n = {row['n']}){after}"])
        for row in rows.values():
            if "ratio" in row:
                lines.append([f"times faster than preset `{row['preset']}`", f"{row['ratio']:.1f}"])
        if "app" in rows:
            app = rows["app"]
            lines.append(["`python app.py` to first page", f"{app['first_page_s']:.1f} s"])
            if app["peak_reading_mb"] is not None:
                lines.append(
                    ["peak memory while reading", f"{app['peak_reading_mb'] / 1024:.2f} GB"]
                )
        rate = f"{rows['machine']['best_gflops']:.0f} GFLOP/s"
        lines.append(["the machine's own matrix products", rate])
        parts.append(f"{md.table(['', 'median / p95'], lines)}\n\n{md.source(result)}")
    return "\n\n".join(parts)
