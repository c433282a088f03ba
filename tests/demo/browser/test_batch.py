"""Batch and report in Chromium."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_maker
import numpy as np
import pytest
from torch import Tensor

from core.scan import to_png
from demo.phantom import draw_phantom
from demo.rendering import wording
from tests.demo.browser.browsing import (
    NEEDS_BROWSER,
    Served,
    drop,
    open_settings,
    set_steps,
    wait_for_line,
    wait_for_scan,
)

pytestmark = [*NEEDS_BROWSER, pytest.mark.slow]


def drop_files(page: Any, files: dict[str, bytes]) -> None:
    page.get_by_role("tab", name="Batch").click()
    page.set_input_files(
        "#batch-files input[type=file]",
        [{"name": n, "mimeType": "image/png", "buffer": data} for n, data in files.items()],
    )
    page.wait_for_function(
        "n => document.querySelectorAll('.mf-batch tbody tr').length >= n", arg=len(files),
        timeout=60_000,
    )  # fmt: skip


def catch_download(page: Any, button: str, tmp_path: Path) -> Path:
    """Return the file that a button passes to the browser."""
    with page.expect_download(timeout=60_000) as download:
        page.click(button)
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return path


def rows(page: Any) -> list[str]:
    return page.locator(".mf-batch tbody tr").all_inner_texts()


def wait_for_progress(page: Any, words: str) -> None:
    page.wait_for_selector(f".mf-progress >> text={words}", timeout=180_000)


def test_a_batch_is_read_stopped_and_handed_out(
    served: Served, visit: Callable[[str], Any], tmp_path: Path
) -> None:
    stored = (draw_phantom(4, False)[0].numpy() * 3000).astype(np.uint16)
    frames = np.stack([stored, stored[::-1], stored])
    several = dicom_maker.build_data_set(frames, 12, NumberOfFrames=3)
    files = {f"Jane Doe {n}.png": to_png(draw_phantom(n, True)) for n in range(5)}
    files |= {"broken.png": b"nothing", "series.dcm": dicom_maker.encode_native(several, frames)}
    page = visit(served.url)
    drop_files(page, files)
    assert served.kept() == [] and len(rows(page)) == 7
    assert not page.get_by_text("Jane Doe 0.png").is_visible()
    page.check("#batch-names input")
    assert page.get_by_text("Jane Doe 0.png").is_visible()
    page.locator("#batch-each label", has_text="each slice").click()
    page.wait_for_selector(".mf-batch >> text=3 of 3")
    page.click("#batch-run")
    page.wait_for_selector(".mf-batch >> text=/\\d+ ms/", timeout=60_000)
    page.click("#batch-stop")
    wait_for_progress(page, "Stopped")
    page.wait_for_timeout(4000)  # the scan that was being read when it was stopped is done by now
    kept = [row for row in rows(page) if " ms" in row]
    assert 1 <= len(kept) < 8
    page.click("#batch-run")
    wait_for_progress(page, "Done: 8 of 9 read, 1 refused")
    assert [row for row in rows(page) if " ms" in row][: len(kept)] == kept  # not read again
    assert "not a picture or a volume" in rows(page)[5]
    table = catch_download(page, "#batch-csv", tmp_path).read_bytes().decode()
    lines = list(csv.DictReader(table.splitlines()))
    assert [line["status"] for line in lines] == ["read"] * 5 + ["refused"] + ["read"] * 3
    assert [line["file"] for line in lines] == ["1", "2", "3", "4", "5", "6", "7", "7", "7"]
    pdf = catch_download(page, "#batch-pdf", tmp_path).read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"Jane" not in table.encode() + pdf and b"Secret" not in table.encode() + pdf
    page.wait_for_selector("#batch-file >> text=Downloaded")
    assert page.locator("#batch-file a").count() == 0  # nothing of the file stays in the page
    page.click("#batch-clear")
    page.wait_for_selector("text=Drop several files")
    assert served.kept() == [] and "Jane" not in served.log.read_text()


def test_others_are_served_between_the_scans_of_a_batch(
    served: Served, visit: Callable[[str], Any], scan: Tensor
) -> None:
    first, second = visit(served.url), visit(served.url)
    drop(second, to_png(scan))
    wait_for_scan(second)
    second.locator("#kind label", has_text="none").click()
    drop_files(first, {f"{n}.png": to_png(draw_phantom(n, True)) for n in range(12)})
    first.click("#batch-run")
    first.wait_for_selector(".mf-batch >> text=/\\d+ ms/", timeout=60_000)
    second.click("#analyse")
    wait_for_line(second, "Done, without an attack.")
    assert any("waiting" in row for row in rows(first))  # it did not wait for the whole batch
    wait_for_progress(first, "Done: 12 of 12 read")


def test_the_report_is_made_when_it_is_asked_for(
    served: Served, visit: Callable[[str], Any], tmp_path: Path
) -> None:
    page = visit(served.url)
    wait_for_line(page, "finished example")
    assert page.locator("#report-pdf").is_visible()
    page.click("#sample-0")
    wait_for_line(page, "Choose a scan, then press Analyse.")
    assert not page.locator("#report-pdf").is_visible()  # there is nothing to report yet
    open_settings(page)
    set_steps(page, 2)
    page.click("#analyse")
    wait_for_line(page, "Done.")
    assert catch_download(page, "#report-pdf", tmp_path).read_bytes().startswith(b"%PDF-")
    assert catch_download(page, "#report-png", tmp_path).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as download:
        page.click('a[download="medfedpure-report.json"]')
    document = json.loads(Path(download.value.path()).read_bytes())
    assert document["attack"]["steps"] == 2 and wording.RESEARCH in document["notice"]
    page.wait_for_selector("#report-file >> text=Downloaded")
    assert page.locator("#report-file a").count() == 0 and served.kept() == []
    page.click("#clear")
    page.wait_for_selector("text=nothing was kept on disk")
    assert not page.locator("#report-pdf").is_visible()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_batch_fits_a_tablet(served: Served, visit: Callable[[str], Any], theme: str) -> None:
    page = visit(f"{served.url}/?__theme={theme}")
    page.set_viewport_size({"width": 1024, "height": 768})
    drop_files(page, {"a name that is quite long, as they are in practice.png": b"x"})
    page.check("#batch-names input")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
    table = "document.querySelector('.mf-scroll')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")
    assert page.locator("#batch-run").bounding_box()["height"] < 45  # its words are on one line
