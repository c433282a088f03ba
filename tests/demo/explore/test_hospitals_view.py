"""Hospitals on the page: the chosen one's system reads, and each one's reading is shown."""

from __future__ import annotations

import base64
import copy
import functools
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from matplotlib.text import Text
from torch import Tensor

from core import __main__ as command_line
from core import checkpoint
from core.pipeline import MedFedPure
from core.scan import to_png, to_uint8
from core.weights import Systems, choose_hospital, load_all
from demo import repeat
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings, iterate_attack
from demo.analysis.hospitals import HospitalReader
from demo.batch import pdf as batch_pages
from demo.batch.worklist import Worklist
from demo.explore import analyse, hospitals_view, slices
from demo.explore.analyse import AnalysisView
from demo.explore.attack_trajectory import AttackSteps
from demo.explore.cancellation import RequestGeneration
from demo.explore.controls import Controls
from demo.explore.hospitals_view import HospitalsSection
from demo.explore.progress_strip import Stages
from demo.explore.series import build_series
from demo.explore.tab import ExploreTab
from demo.rendering import wording
from demo.report import document as report
from demo.report import pdf as report_pages
from demo.serving.api import Api
from demo.serving.uploads import decode_upload
from tests.hospitals import COUNT, write

NUMBERS = list(range(1, COUNT + 1))
VALUES = ("pgd", "linf", 0.03, 0.01, 2, "mixture", "unknown", 5)


@pytest.fixture(scope="module")
def folder(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    write(copy.deepcopy(tiny_system), folder)
    return folder


@pytest.fixture(scope="module")
def systems(folder: Path) -> Systems:
    return load_all(folder, "cpu")


@pytest.fixture(scope="module")
def done(systems: Systems, scan: Tensor) -> Analysis:
    return run_analysis(systems, scan, 3)


def run_analysis(systems: Systems, scan: Tensor, number: int | None, *values: Any) -> Analysis:
    settings = AttackSettings(*(values or VALUES))
    *_, shown = analyse.analyse(systems[number], Analysis(scan, settings), {})
    assert shown.analysis is not None
    reader = HospitalReader(systems, shown.analysis)
    while not reader.is_done:
        found = reader.read_next()
    return replace(shown.analysis, elsewhere=found)


def render_table(analysis: Analysis) -> str:
    return hospitals_view.render_table(analysis, analysis.elsewhere, COUNT)


def test_pooled_weights_show_no_hospital(tiny_system: MedFedPure, scan: Tensor) -> None:
    steps = analyse.analyse(tiny_system, Analysis(scan, AttackSettings(*VALUES)), {})
    shown = functools.reduce(AnalysisView.update, steps)
    assert shown.results and "ospital" not in shown.stages + shown.results + str(shown.decision)
    assert shown.analysis is not None and shown.analysis.elsewhere == {}
    document = report.build_document(shown.analysis)
    assert "ospital" not in json.dumps({**document, "weights_sha256": {}})


def test_the_card_s_numbers_are_those_of_reading_at_each(done: Analysis, systems: Systems) -> None:
    assert list(done.elsewhere) == ["clean", "attacked"]
    card = render_table(done)
    cells = re.findall(r"<td>(.*?)</td>", card.split("<tbody>")[1])
    for (name, d), column in zip(done.readings, (0, 1), strict=True):
        for at, cell in zip(done.elsewhere[name], cells[column::2], strict=True):
            alone = systems[at.hospital].read(d.scan, d.seed)
            assert (at.can_judge, at.flagged) == (alone.can_judge, alone.flagged)
            assert (at.tau, at.t_star) == (alone.tau, alone.t_star)
            assert at.score == pytest.approx(alone.score, abs=1e-4)
            assert at.tumour_probability == pytest.approx(alone.tumour_probability, abs=1e-5)
            assert ("attack suspected" in cell) is alone.flagged
            said = (
                wording.format_percent(alone.tumour_probability)
                .replace("<", "&lt;")
                .replace(">", "&gt;")
            )
            assert f"<span>{said}</span>" in cell
            assert f"width:{alone.tumour_probability * 100:.1f}%" in cell
    chosen = done.elsewhere["attacked"][2]
    assert done.attacked is not None and done.hospital == chosen.hospital == 3
    assert chosen.tumour_probability == pytest.approx(done.attacked.tumour_probability, abs=1e-6)


def test_the_card_says_what_it_is(done: Analysis, systems: Systems, scan: Tensor) -> None:
    card = render_table(done)
    rows = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", card)
    assert [("mf-chosen" in row, ", the one chosen" in row) for row in rows] == [
        (False, False), (False, False), (True, True)
    ]  # fmt: skip
    for words in (
        "(simulated)", "experts are shared", "Clean scan", "Attacked scan",
        "The attacked scan is the one made at hospital 3.",
    ):  # fmt: skip
        assert words in card
    clean = run_analysis(systems, scan, 1, "none")
    card = render_table(clean)
    assert "ttacked scan" not in card and len(re.findall("<td><div", card)) == COUNT
    unread = hospitals_view.render_table(clean, {}, COUNT)
    assert f"0 of {COUNT} hospitals have read it." in unread and "<td><div" not in unread
    assert "hospitals have read it" not in card
    assert hospitals_view.WAITING_MESSAGE in hospitals_view.render_empty()


def test_where_a_hospital_cannot_judge_no_probability_is_shown(done: Analysis) -> None:
    first, *others = done.elsewhere["clean"]
    unsure = replace(first, can_judge=False, flagged=False, tumour_probability=0.123)
    card = render_table(replace(done, elsewhere={"clean": (unsure, *others)}))
    assert card.count("<td>cannot judge</td>") == 1 and "12 %" not in card.split("Hospital 2")[0]


@pytest.fixture
def section(systems: Systems) -> Any:
    """Return the section without widgets."""
    section = object.__new__(HospitalsSection)
    section.systems = systems
    return section


def finish() -> RequestGeneration:
    generation = RequestGeneration()
    generation.finish_reading()
    return generation


def test_one_event_reads_at_one_hospital(
    section: HospitalsSection, done: Analysis, systems: Systems
) -> None:
    analysis, generation = replace(done, elsewhere={}), finish()
    reader, turn, table = section._start(generation, analysis, 4)
    assert turn == 5 and "0 of 3 hospitals have read it." in table
    counts, turns = [], []
    for _ in systems:
        kept, turn, table, results, after = section._read_next(generation, analysis, reader, turn)
        counts.append(table.count('<th scope="row">'))
        turns.append(turn)
    assert counts == [1, 2, 3] and after.elsewhere == done.elsewhere
    assert turns == [6, 7, gr.skip()] and kept is None  # no further event, nothing kept
    link = re.search(r"data:application/json;base64,([^\"]+)", results)
    assert link and "at_each_hospital" in json.loads(base64.b64decode(link[1]))
    late = section._read_next(generation, after, reader, 7)  # a second chain of events
    assert late == (gr.skip(),) * 5


def test_the_next_action_ends_the_readings(
    section: HospitalsSection, done: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = finish()
    reader, turn, _ = section._start(generation, done, 0)
    read_next = HospitalReader.read_next

    def read_and_end(reader: HospitalReader) -> Any:
        generation.end_reading()  # while the hospital reads
        return read_next(reader)

    monkeypatch.setattr(HospitalReader, "read_next", read_and_end)
    for count in (1, 1):  # read, then not even read
        assert section._read_next(generation, done, reader, turn) == (gr.skip(),) * 5
        assert reader.count == count


def test_readings_of_another_analysis_are_not_shown(
    section: HospitalsSection, done: Analysis
) -> None:
    generation = finish()
    reader, turn, _ = section._start(generation, done, 0)
    other = replace(done, attack_ms=1.0)
    assert section._read_next(generation, other, reader, turn) == (gr.skip(),) * 5
    assert reader.count == 0


def test_without_a_finished_analysis_nothing_is_read(
    section: HospitalsSection, done: Analysis
) -> None:
    stopped = finish()
    stopped.end()
    for generation, analysis in ((finish(), None), (RequestGeneration(), done), (stopped, done)):
        assert section._start(generation, analysis, 4) == (gr.skip(),) * 3


def test_an_error_is_said(
    section: HospitalsSection, done: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reader: HospitalReader) -> None:
        raise MemoryError

    generation = finish()
    reader, turn, _ = section._start(generation, done, 0)
    monkeypatch.setattr(HospitalReader, "read_next", fail)
    kept, _, table, *_ = section._read_next(generation, done, reader, turn)
    assert kept is None and hospitals_view.FAILURE_MESSAGE in table


def test_what_was_read_everywhere_is_shown_at_once(
    section: HospitalsSection, done: Analysis
) -> None:
    assert section.show(done) == (render_table(done), None)
    assert section.show(None) == (hospitals_view.render_empty(), None)
    section.systems = {}
    assert section.show(done) == ("", None)


def test_another_default_is_chosen_first_and_the_rows_stay_in_order(
    systems: Systems, done: Analysis
) -> None:
    listed = {number: systems[number] for number in (3, 1, 2)}
    assert [*HospitalReader(listed, done).systems] == NUMBERS
    controls = object.__new__(Controls)
    controls._build_defence(listed[3].config, [*listed])
    assert isinstance(controls.hospital, gr.Dropdown) and controls.hospital.value == 3
    assert [number for _, number in controls.hospital.choices] == NUMBERS
    assert choose_hospital(None, [*listed]) == 3


def test_the_papers_options_hold_at_every_hospital(systems: Systems, scan: Tensor) -> None:
    options = {"score": "paper", "policy": "paper", "d": 0.011}
    steps = analyse.analyse(
        systems[3].with_options(**options), Analysis(scan, AttackSettings("none")), {}
    )
    analysis = functools.reduce(AnalysisView.update, steps).analysis
    assert analysis is not None and analysis.options == options
    reader = HospitalReader(systems, analysis)
    while not reader.is_done:
        found = reader.read_next()["clean"]
    for at in found:
        alone = systems[at.hospital].with_options(**options).read(scan)
        assert (at.flagged, at.tau, at.t_star) == (alone.flagged, alone.tau, alone.t_star)
        assert at.score == pytest.approx(alone.scores["paper"], abs=1e-4)
        assert alone.scores["paper"] != alone.scores["fused"]


@pytest.mark.slow
def test_reading_attack_and_explanation_are_the_chosen_hospital_s(
    systems: Systems, scan: Tensor
) -> None:
    series_cache = {"a key": build_series(to_uint8(scan))}
    explore = object.__new__(ExploreTab)
    explore.systems, explore.series_cache = systems, series_cache  # type: ignore[assignment]
    explore.certifier, explore.no_certifier = None, ""
    explore.problem, explore.idle = "", Stages()
    found = {}
    for number in NUMBERS:
        running = explore._analyse(
            RequestGeneration(), "a key", False, number, "fused", "picture", 0.0075, *VALUES
        )
        *steps, (*_, analysis) = running
        results = [step.results for step in steps if isinstance(step, AnalysisView)]
        found[number] = analysis
        system, settings = systems[number], AttackSettings(*VALUES)
        alone = system.read(scan, settings.seed)
        assert analysis.info["hospital"] == analysis.hospital == number
        assert analysis.clean.attention.tolist() == pytest.approx(alone.attention.tolist())
        *_, last = iterate_attack(system, scan, settings)
        assert torch.equal(analysis.attacked_scan, last.x_adv[0])
        assert f"read as hospital {number} (simulated)" in results[-1]
    for one, other in itertools.combinations(found.values(), 2):
        assert not torch.equal(one.attacked_scan, other.attacked_scan)
    nobody = explore._analyse(
        RequestGeneration(), "a key", False, 9, "fused", "picture", 0.0075, *VALUES
    )
    assert "mf-running" not in str(list(nobody))


def test_the_smallest_attack_is_sought_where_the_attack_was_made(
    systems: Systems, done: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def watched(system: MedFedPure | None, *_: Any) -> Iterator[str]:
        asked.append(system)
        yield ""

    monkeypatch.setattr("demo.explore.attack_trajectory.search", watched)
    steps = SimpleNamespace(systems=systems)
    list(AttackSteps._search(steps, RequestGeneration(), done))  # type: ignore[arg-type]
    list(AttackSteps._search(steps, RequestGeneration(), None))  # type: ignore[arg-type]
    assert asked == [systems[3], None]


def test_a_series_is_scored_by_the_chosen_hospital(systems: Systems, scan: Tensor) -> None:
    said = []
    for number in (1, 2):
        series = build_series(to_uint8(scan))
        list(slices.read_slices(systems[number], series))
        assert series.get_slider_value()["tau"] == systems[number].tau
        said.append(series.summary)
    assert "1 marked; read as hospital 1 (simulated)." in said[0]
    assert "none marked; read as hospital 2 (simulated)." in said[1]


def test_reports_name_the_hospital_and_repeat_as_it(
    done: Analysis,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = checkpoint.read_manifest(folder)
    monkeypatch.setattr(report, "read_manifest", lambda: files)
    document = json.loads(report.to_json(done))
    assert document["system"]["hospital"] == 3 and document["system"]["hospitals"] == NUMBERS
    assert [at["hospital"] for at in document["at_each_hospital"]["attacked"]] == NUMBERS
    own = {name for name in document["weights_sha256"] if name.startswith("hospital")}
    assert own == {"hospital-03.safetensors"}
    path = tmp_path / "report.json"
    path.write_bytes(report.to_json(done))
    assert repeat.main([str(path), "--weights", str(folder)]) == 0
    monkeypatch.chdir(tmp_path)
    png = base64.b64decode(document["scan"]["png"].partition(",")[2])
    Path("scan.png").write_bytes(png)
    capsys.readouterr()
    line = document["repeat"]["clean reading"].split()
    assert command_line.main([*line[3:], "--weights", str(folder)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["tumour_probability"] == pytest.approx(
        document["clean"]["tumour_probability"], abs=1e-4
    )
    for made in report_pages.draw_pages(done):
        words = [text.get_text() for text in made.figure.findobj(Text)]
        assert any("read as hospital 3 (simulated)" in word for word in words)
    path.write_text("[1, 2]")
    assert repeat.main([str(path), "--weights", str(folder)]) == 2


def test_a_batch_says_that_the_first_hospital_read(systems: Systems, scan: Tensor) -> None:
    work = Worklist()
    work.add("a.png", decode_upload(to_png(scan)))
    first = batch_pages.draw_pages(work, False, systems[1].info)[0]
    words = [text.get_text() for text in first.figure.findobj(Text)]
    assert any("read as hospital 1 (simulated)" in word for word in words)


def test_programs_choose_by_number(systems: Systems, tiny_system: MedFedPure, scan: Tensor) -> None:
    uploads = SimpleNamespace(decode=lambda path: decode_upload(to_png(scan)))

    def ask(systems: Systems, hospital: float) -> dict[str, Any]:
        api = Api.__new__(Api)  # without its widgets
        api.systems, api.problem, api.uploads = systems, "", uploads  # type: ignore[assignment]
        return api.read({"path": "a"}, False, 0, 0, hospital)

    for given, number in ((0, 1), (1, 1), (3, 3)):
        alone = systems[number].read(scan)
        assert ask(systems, given)["attention"] == pytest.approx(alone.attention.tolist())
    with pytest.raises(gr.Error, match="no hospital 4: these weights have hospitals 1, 2, 3"):
        ask(systems, 4)
    assert ask({None: tiny_system}, 0)["tau"] == tiny_system.tau
    with pytest.raises(gr.Error, match="no hospital 1: these weights have no hospitals"):
        ask({None: tiny_system}, 1)
