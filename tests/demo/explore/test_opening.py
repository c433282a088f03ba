"""Finished example that the page opens on."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from core.pipeline import MedFedPure
from core.scan import to_uint8
from demo import page
from demo.analysis.attack import AttackSettings
from demo.analysis.hospitals import HospitalReader
from demo.examples import Example
from demo.explore import analyse, opening, tab
from demo.explore.cancellation import RequestGeneration
from demo.explore.opening import Opening
from demo.explore.progress_strip import Stages
from demo.explore.tab import ExploreTab
from demo.phantom import draw_phantom
from demo.serving.expiring_cache import ExpiringCache


def make_example(number: int, *, is_failure: bool) -> Example:
    levels = to_uint8(draw_phantom(number, tumour=True))
    return Example(f"sample {number}", levels, True, 0.5, True, True, not is_failure)


SAMPLES = [make_example(0, is_failure=True), make_example(1, is_failure=False)]


@pytest.fixture
def explore(system: MedFedPure) -> Any:
    """Return the tab's handlers without widgets."""
    explore = object.__new__(ExploreTab)
    explore.systems, explore.problem, explore.idle = {None: system}, "", Stages()
    explore.certifier, explore.no_certifier = None, ""
    explore.series_cache = ExpiringCache(60, 4, 2**20)
    explore.opening = Opening({None: system}, SAMPLES)
    explore._show_sections = lambda analysis: (analysis,)  # type: ignore[method-assign]
    return explore


def test_a_visitor_finds_the_example_then_its_finished_analysis(
    explore: Any, system: MedFedPure
) -> None:
    first, last = explore._open(RequestGeneration(), "")
    truth, key = first[:2]
    assert truth == "tumour" and "Synthetic" in first[5]  # the line about the scan
    series = explore.series_cache.get(key)
    assert (series.get_levels() == SAMPLES[1].levels).all()  # the first is a known failure
    _, view, results, decision, analysis = last[-6:-1]
    assert last[-1] is analysis and analysis.attacked and analysis.clean_scores
    alone = system.read(series.get_scan(), 0)
    assert analysis.clean.tumour_probability == pytest.approx(alone.tumour_probability, abs=1e-5)
    assert {"scan", "attacked", "clean_error", "attacked_purified"} <= view.keys()
    assert opening.LINE in last[-7] and "data-says" in results and decision
    assert last[:-7] == (gr.skip(),) * (len(first) - 7)


def test_all_visitors_share_one_analysis(explore: Any) -> None:
    (_, one), (_, other) = (list(explore._open(RequestGeneration(), "")) for _ in range(2))
    assert one[-1] is other[-1]


def test_a_visitor_who_was_faster_keeps_the_own_scan(explore: Any) -> None:
    generation = RequestGeneration()
    generation.end()
    assert list(explore._open(generation, "")) == [gr.skip()]
    generation = RequestGeneration()
    running = explore._open(generation, "")
    next(running)
    generation.end_reading()
    assert list(running) == [gr.skip()]


def test_a_failed_analysis_leaves_the_example(
    explore: Any, system: MedFedPure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(analyse, "iterate_attack", fail)
    explore.opening = Opening({None: system}, SAMPLES)
    (only,) = explore._open(RequestGeneration(), "")
    assert only[0] == "tumour"


def test_the_settings_are_the_controls_own(explore: Any) -> None:
    assert explore.opening.settings == AttackSettings(truth="tumour")


def test_every_hospital_reads_the_example_once_for_all(
    explore: Any, system: MedFedPure, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    read_next = HospitalReader.read_next

    def count(reader: HospitalReader) -> Any:
        calls.append(reader)
        return read_next(reader)

    monkeypatch.setattr(HospitalReader, "read_next", count)
    system.info["hospital"] = 1
    explore.opening = Opening({1: system, 2: system}, SAMPLES)
    for _ in range(3):
        *_, last = explore._open(RequestGeneration(), "")
        elsewhere = last[-1].elsewhere
        assert [at.hospital for at in elsewhere["attacked"]] == [1, 2]
    del system.info["hospital"]
    assert len(calls) == 2


def test_whoever_takes_another_scan_ends_the_opening(
    system: MedFedPure, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def build() -> gr.Blocks:  # Gradio leaves a loop of its own open where none is running
        return page.build({None: system}, SAMPLES)

    monkeypatch.setattr(tab, "Opening", lambda *_: object())  # nothing is read here
    events = asyncio.run(build()).fns
    names = {number: getattr(event.fn, "__qualname__", "") for number, event in events.items()}
    (opens,) = (number for number, name in names.items() if name == "ExploreTab._open")
    enders = [event for event in events.values() if opens in event.cancels]
    ends = {target for event in enders for target in event.targets}
    # a late message of the opening would lay the example's pictures over the new scan
    for handler in ("_make_example_handler.<locals>.take", "_receive", "_slide", "_clear", "_stop"):
        found = [events[n].targets for n, name in names.items() if name == f"ExploreTab.{handler}"]
        assert found and all(ends.issuperset(targets) for targets in found), handler
