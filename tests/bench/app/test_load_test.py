from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.__main__ import main
from bench.app import browser, load_test
from bench.app.latency import BESIDE
from bench.app.load_test import table


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    monkeypatch.setattr(load_test, "TIMED", 2)
    out = tmp_path / "demo.json"
    options = ["--visitors", "2", "--seconds", "2"]
    assert main(["demo", "--out", str(out), *options]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["page", f"page{BESIDE}", "2 visitors"]
    assert rows["page"]["requests_that_leave"] == rows["page"]["left_after_close"] == 0
    assert rows["2 visitors"]["errors"] == rows["2 visitors"]["mixed"] == 0


def test_without_a_browser_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "CHROMIUM", None)
    with pytest.raises(ValueError, match="needs Chromium"), browser.open_browser():
        pass


def test_a_request_that_leaves_is_kept_and_stopped() -> None:
    done: list[str] = []
    guest = browser.Visitor(None)
    for url in ("http://127.0.0.1:7860/x", "https://fonts.example/x", "http://127.0.0.1.evil/x"):
        guest._watch(
            SimpleNamespace(
                request=SimpleNamespace(url=url),
                continue_=lambda: done.append("let through"),
                abort=lambda: done.append("stopped"),
            )
        )
    assert done == ["let through", "stopped", "stopped"]
    assert guest.strangers == ["https://fonts.example/x", "http://127.0.0.1.evil/x"]


def test_every_visitor_has_a_scan_of_its_own() -> None:
    scans = load_test.make_scans(16)
    assert len(set(scans)) == 16 and all(scan.startswith(b"\x89PNG") for scan in scans)


def test_another_s_result_and_an_error_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = dict.fromkeys(load_test.NUMBERS, 0.5)
    answers: Any = iter([mine, {**mine, "score": 0.6}])
    monkeypatch.setattr(load_test, "open_client", lambda url: lambda data: next(answers))
    visit = load_test._Visitor(SimpleNamespace(url=""), b"", mine)  # type: ignore[arg-type]
    visit.stay(float("inf"))
    assert (visit.asked, len(visit.times), visit.mixed, len(visit.errors)) == (3, 2, 1, 1)


def test_memory_is_noted_once_at_each_mark() -> None:
    samples = [(5, 100.0), (21, 110.0), (100, 150.0), (230, 121.0)]
    assert load_test.summarize_memory(samples) == {
        "memory_mb_after_20": 110.0,
        "memory_mb_after_200": 121.0,
        "memory_mb_at_the_end": 121.0,
        "growth_20_to_200": pytest.approx(0.1),
    }


def test_the_table_says_what_was_measured() -> None:
    times = {"median_ms": 250.0, "p95_ms": 300.0}
    page = {"first_picture": times, "pgd7_reading": times, "requests_that_leave": 0}
    crowd = {"seconds": 300, "asked": 900, "readings": 900, "errors": 0, "mixed": 0, "wait": times}
    rows = {
        "page": {**page, "left_after_close": 0},
        f"page{BESIDE}": {**page, "pgd7_reading": {"median_ms": 500.0, "p95_ms": 600.0}},
        "10 visitors": {
            **crowd,
            "growth_20_to_200": 0.012,
            "memory_mb_after_20": 1000,
            "memory_mb_at_the_end": 1040,
        },
    }
    machine = {"device_name": "a processor", "threads": 2}
    facts = {"commit": "a" * 40, "dirty": False, "date": "2026-11-21", "machine": machine}
    text = table({"demo": {"rows": rows, "provenance": facts, "warnings": []}})
    assert (
        "0.25 s / 0.30 s" in text
        and "PGD-7, beside 2 busy processes, median / p95 | 0.50 s / 0.60 s |" in text
        and "900, 900, 0, 0" in text
        and "+1.2%" in text
        and "+4.0%" in text
    )
