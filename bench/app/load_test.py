"""Load test of the page: time to the first image and to a result, ten visitors at once, memory."""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import markdown as md
from bench import options
from bench.app.browser import open_browser
from bench.app.latency import BESIDE, BUSY, measure_beside, summarize, time_call
from bench.app.server import Running, open_client, peak_memory, run_app
from bench.provenance import ROOT, machine_facts
from bench.result_file import ResultFile
from core.checkpoint import WEIGHTS, read_manifest

HELP = "load test of the page: times, ten visitors at once, memory"
EXAMPLES = ROOT / "demo" / "examples"
TIMED = 6  # readings on the page
NUMBERS = ("tumour_probability", "tumour_probability_undefended", "score", "novelty")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add = parser.add_argument
    add("--visitors", type=int, default=10, help="visitors at once")
    add("--seconds", type=float, default=300.0, help="time that they stay")
    options.add_output(parser, Path("results/demo.json"))


def run(args: argparse.Namespace) -> None:
    """Measures the page of the app with the weights that ship."""
    hashes = {name: info.sha256 for name, info in read_manifest(WEIGHTS).items()}
    machine = machine_facts(torch.device("cpu"))
    settings = {"visitors": args.visitors, "seconds": args.seconds}
    identity = {"weights": hashes, "settings": settings, "timed_on": machine}
    store = ResultFile(args.out, "demo", identity, {"machine": machine}, args.fresh)
    measure(store, args.visitors, args.seconds)
    store.close()


def measure(store: ResultFile, visitors: int, seconds: float) -> None:
    """Fills `store`; each row starts the app as users do, with the weights that ship."""
    for name, busy in (("page", 0), (f"page{BESIDE}", BUSY)):
        store.row(name, partial(measure_beside, busy, measure_page))
    row = store.row(f"{visitors} visitors", lambda: measure_visitors(visitors, seconds))
    if row["errors"] or row["mixed"]:
        store.warn("visitors met errors or each other's results")


def measure_page() -> dict[str, Any]:
    """Returns times on the page, requests to other machines, and files left after closing."""
    first, whole = [], []
    data = make_scans(1)[0]
    with tempfile.TemporaryDirectory() as folder:
        with run_app(TMPDIR=folder, HF_HUB_OFFLINE="1") as served, open_browser() as guest:
            for _ in range(TIMED):
                page = guest.open(served.url)
                first.append(time_call(partial(drop_scan, page, data)))
                whole.append(time_call(partial(analyse, page)))
                page.context.close()
            kept = sum(p.is_file() for p in Path(folder).rglob("*"))
        left = sum(1 for _ in Path(folder).rglob("*"))
    return {
        "app_to_first_page_s": served.first_page_s,
        "first_picture": summarize(first[1:]),  # the first visit warms the app up
        "pgd7_reading": summarize(whole[1:]),
        "requests_that_leave": len(guest.strangers),
        "script_errors": guest.errors,
        "uploads_on_disk_while_open": kept,
        "left_after_close": left,
    }


def measure_visitors(count: int, seconds: float) -> dict[str, Any]:
    """Returns the readings of visitors at once, each of its own scan, and results mixed up."""
    scans = make_scans(count)
    with run_app() as served:
        alone = [open_client(served.url)(data) for data in scans]
        ends = time.monotonic() + seconds
        records = [_Visitor(served, data, alone[i]) for i, data in enumerate(scans)]
        threads = [threading.Thread(target=v.stay, args=(ends,)) for v in records]
        samples = []
        for thread in threads:
            thread.start()
        is_over = False
        while not is_over:
            time.sleep(0.2)
            is_over = not any(thread.is_alive() for thread in threads)
            memory_mb = peak_memory(served.process.pid, "VmRSS")
            samples.append((sum(len(v.times) for v in records), memory_mb))
    times = [ms for v in records for ms in v.times]
    return {
        "seconds": seconds,
        "asked": sum(v.asked for v in records),
        "readings": len(times),
        "errors": sum(len(v.errors) for v in records),
        "first_error": next((e for v in records for e in v.errors), None),
        "mixed": sum(v.mixed for v in records),
        "fewest_of_one_visitor": min(len(v.times) for v in records),
        "most_of_one_visitor": max(len(v.times) for v in records),
        "wait": summarize(times),
        **summarize_memory(samples),
    }


class _Visitor:
    """A visitor that reads one scan repeatedly."""

    def __init__(self, served: Running, data: bytes, expected: dict[str, Any]) -> None:
        self.served, self.data, self.expected = served, data, expected
        self.times: list[float] = []
        self.errors: list[str] = []
        self.asked = self.mixed = 0

    def stay(self, until: float) -> None:
        """Reads until the time is over."""
        try:
            ask = open_client(self.served.url)
            while time.monotonic() < until:
                start = time.perf_counter()
                self.asked += 1
                answer = ask(self.data)
                self.times.append((time.perf_counter() - start) * 1e3)
                self.mixed += any(abs(answer[n] - self.expected[n]) > 1e-4 for n in NUMBERS)
        except Exception as error:  # the client raises whatever the app answered
            self.errors.append(f"{type(error).__name__}: {error}")


def summarize_memory(samples: Sequence[tuple[int, float | None]]) -> dict[str, Any]:
    """Returns resident memory in MB after 20 and 200 readings and at the end, and its growth.

    `samples` are numbers of readings with the memory at that time.
    """
    early, late = (next((mb for n, mb in samples if n >= mark), None) for mark in (20, 200))
    return {
        "memory_mb_after_20": early,
        "memory_mb_after_200": late,
        "memory_mb_at_the_end": samples[-1][1],
        "growth_20_to_200": late / early - 1 if early and late else None,
    }


def make_scans(count: int) -> list[bytes]:
    """Returns the synthetic examples as PNG, then mirrored, then both upside down."""
    files = sorted(EXAMPLES.glob("*.png"))
    turns = [[], [0], [1], [0, 1]]
    made = []
    for k in range(count):
        picture: Image.Image = Image.open(files[k % len(files)])
        for turn in turns[k // len(files) % 4]:
            picture = picture.transpose(Image.Transpose(turn))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        made.append(buffer.getvalue())
    return made


def drop_scan(page: Any, data: bytes) -> None:
    file = {"name": "scan.png", "mimeType": "image/png", "buffer": data}
    page.set_input_files("#file input[type=file]", file)
    page.wait_for_selector("#scan:has-text('Scan loaded')")


def analyse(page: Any) -> None:
    page.click("#analyse")
    page.wait_for_selector(".mf-line:has-text('Done.')")


def table(results: md.Results) -> str:
    """Renders times, readings and memory."""
    result = md.results_of(results, "demo", ("",))[""]
    rows = result["rows"]
    page = rows["page"]
    name, crowd = next((n, row) for n, row in rows.items() if n.endswith("visitors"))
    wait, growth = crowd["wait"], crowd["memory_mb_at_the_end"] / crowd["memory_mb_after_20"] - 1
    lines = [
        [f"{what}{place.removeprefix('page')}, median / p95",
         " / ".join(f"{rows[place][key][m] / 1e3:.2f} s" for m in ("median_ms", "p95_ms"))]
        for key, what in (
            ("first_picture", "a file dropped to its picture"),
            ("pgd7_reading", "Analyse to the whole result with PGD-7"),
        )
        for place in ("page", f"page{BESIDE}") if place in rows
    ]  # fmt: skip
    lines += [
        ["requests of the browser that left the machine", str(page["requests_that_leave"])],
        ["files left after closing", str(page["left_after_close"])],
        [
            f"{name} of the endpoint `read` for {crowd['seconds']:.0f} s: requests, results, "
            "errors, mixed-up results",
            f"{crowd['asked']}, {crowd['readings']}, {crowd['errors']}, {crowd['mixed']}",
        ],
        ["their wait for a reading, median", f"{wait['median_ms'] / 1e3:.1f} s"],
        ["memory of the app after 200 of them against after 20",
         f"{crowd['growth_20_to_200']:+.1%}"],
        ["and after all", f"{growth:+.1%}"],
    ]  # fmt: skip
    return f"{md.table(['', ''], lines)}\n\n{md.source(result)}"
