from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_maker import build_data_set, encode_native
from matplotlib.text import Text

import demo
from core.diagnosis import Diagnosis
from core.pipeline import MedFedPure
from core.scan import from_uint8, to_png
from demo.analysis.regions import find_regions
from demo.analysis.volume import answer_volume, read_slices
from demo.batch import pdf, table, worklist
from demo.batch.reading import Reading
from demo.batch.worklist import Worklist
from demo.phantom import draw_phantom
from demo.rendering import wording
from demo.rendering.tumour_map import describe_where
from demo.rendering.volume_answer import describe_answer
from demo.serving.uploads import decode_upload


def volume(slices: int) -> bytes:
    """Build a NIfTI file of different heads, the first slice blank."""
    heads = [draw_phantom(10 + n, n % 2 == 0)[0].numpy() * 900 for n in range(slices)]
    heads[0] = np.zeros_like(heads[0])
    image = nibabel.Nifti1Image(np.stack(heads, -1).astype(np.int16), np.eye(4))
    return bytes(image.to_bytes())


def fill_worklist(*files: bytes) -> Worklist:
    work = Worklist()
    for number, file in enumerate(files):
        work.add(f"Jane Doe {number}.png", decode_upload(file))
    return work


@pytest.fixture
def work() -> Worklist:
    """Build a batch: two pictures with a broken file between them, and a volume of four slices."""
    pictures = [to_png(draw_phantom(n, n == 1)) for n in range(2)]
    return fill_worklist(pictures[0], b"broken", pictures[1], volume(4))


def run(system: MedFedPure, work: Worklist, each: bool = False) -> list[str]:
    """Return the page's HTML after each step."""
    goes_on = work.start(each)
    shown = [table.render(work, each)]
    while goes_on:
        goes_on = work.step(system, each)
        shown.append(table.render(work, each))
    return shown


def test_a_bad_file_has_its_row_and_the_others_are_read(
    tiny_system: MedFedPure, work: Worklist
) -> None:
    run(tiny_system, work)
    results = [result for _, result in work.list_rows(each=False)]
    assert [type(result) for result in results] == [Reading, str, Reading, Reading]
    assert results[1] == decode_upload(b"broken").refusal and results[1].endswith(".")


def test_the_numbers_are_those_of_a_reading_alone(tiny_system: MedFedPure, work: Worklist) -> None:
    run(tiny_system, work)
    for scan, result in work.list_rows(each=False):
        if scan.levels is not None:
            assert isinstance(result, Reading)
            alone = tiny_system.read(from_uint8(scan.levels), 0)
            for name in ("score", "tau", "flagged", "t_star", "tumour_probability"):
                assert getattr(result, name) == pytest.approx(getattr(alone, name), abs=1e-6)


def test_the_middle_slice_or_each_on_request(tiny_system: MedFedPure, work: Worklist) -> None:
    run(tiny_system, work)
    (middle,) = [(s, r) for s, r in work.list_rows(each=False) if s.file == 4]
    assert middle[0].slice == 3
    assert [scan.slice for scan in work.list_waiting(each=True)] == [2, 4]  # the first is blank
    run(tiny_system, work, each=True)
    rows = [(s.slice, r) for s, r in work.list_rows(each=True) if s.file == 4]
    assert [number for number, _ in rows] == [1, 2, 3, 4]
    assert "blank" in str(rows[0][1]) and rows[2][1] is middle[1]  # not read a second time


def test_each_event_reads_one_scan(tiny_system: MedFedPure, work: Worklist) -> None:
    shown = run(tiny_system, work, each=True)
    done = [html.count(" ms</td>") for html in shown]
    assert done == [0, 1, 2, 3, 4, 5]  # two pictures and three slices that are not blank
    running = ["mf-running" in html for html in shown]
    assert running == [True] * 5 + [False]
    assert [html.count("is being read") for html in shown] == [1] * 5 + [0]


def test_the_time_left_is_estimated_from_the_scans_read(
    tiny_system: MedFedPure, work: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(worklist.time, "monotonic", lambda: now)
    work.start(True)
    assert " left." not in table.render(work, True)  # nothing is known yet
    now += 9
    work.step(tiny_system, True)
    assert "About 40 s left." in table.render(work, True)  # 4 scans, 9 s each
    now += 100
    work.step(tiny_system, True)
    assert "About 3 min left." in table.render(work, True)  # 3 scans, 54.5 s each
    work.stop()
    assert " left." not in table.render(work, True)


def test_stopping_keeps_the_readings_and_reading_resumes_from_there(
    tiny_system: MedFedPure, work: Worklist
) -> None:
    assert work.start(True) and work.step(tiny_system, True)
    first = dict(work.readings)
    work.stop()
    html = table.render(work, True)
    assert "readings are kept: 1 of 7 read" in html and len(first) == 1
    assert not work.step(tiny_system, True) and work.readings == first
    run(tiny_system, work, each=True)
    assert len(work.readings) == 5 and work.readings.items() >= first.items()


def test_clearing_leaves_nothing_and_a_late_step_does_not_bring_it_back(
    tiny_system: MedFedPure, work: Worklist
) -> None:
    assert work.start(False) and work.step(tiny_system, False)
    work.clear()
    assert not work.step(tiny_system, False) and work.is_cleared
    assert work.scans == [] and work.names == [] and work.readings == {}
    assert table.EMPTY_MESSAGE in table.render(work, False)


def test_files_dropped_while_it_reads_are_kept(tiny_system: MedFedPure, work: Worklist) -> None:
    assert work.start(False) and work.step(tiny_system, False)
    work.add("late.png", decode_upload(to_png(draw_phantom(7, True))))
    while work.step(tiny_system, False):
        pass
    assert [s.file for s, r in work.list_rows(False) if isinstance(r, Reading)] == [1, 3, 4, 5]


def test_a_reading_that_fails_is_one_row(
    tiny_system: MedFedPure, work: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = tiny_system.read, []

    def sometimes(*values: object) -> object:
        calls.append(values)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return read(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(tiny_system, "read", sometimes)
    run(tiny_system, work)
    results = [result for _, result in work.list_rows(each=False)]
    assert results[0] == "The reading failed: out of memory"
    assert all(isinstance(result, Reading) for result in results[2:])


def test_a_batch_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist, "MAX_SCANS", 4)
    work = fill_worklist(volume(3), volume(6), volume(2), to_png(draw_phantom(1, True)))
    kept = [(s.file, s.slice) for s in work.scans if s.levels is not None]
    assert kept == [(1, 2), (1, 3), (2, 4), (3, 2)]  # of the second only its middle had room
    assert work.scans[-1].refusal == worklist.FULL_MESSAGE


def test_the_csv_holds_all_but_names(tiny_system: MedFedPure, work: Worklist) -> None:
    assert work.start(True) and work.step(tiny_system, True)
    data = work.to_csv(each=True).decode()
    rows = list(csv.DictReader(io.StringIO(data)))
    assert list(rows[0]) == [
        "file", "slice", "slices", "status", "score_name", "score", "tau", "flagged", "t_star",
        "tumour_probability_undefended", "tumour_probability", "can_judge", "stable",
        "stable_radius", "stability_radius", "purifying_turns", "expert_1_share", "expert_2_share",
        "operating_point", "overall_share", "tumour_regions", "tumour_area", "where", "ms", "seed",
        "scan_sha256", "site_shift", "volume_tumour_probability", "volume_slices", "refusal",
        "doubts", "notice",
    ]  # fmt: skip
    assert "Jane" not in data
    assert [row["status"] for row in rows] == [
        "read", "refused", "not read", "refused", "not read", "not read", "not read"
    ]  # fmt: skip
    assert {row["notice"] for row in rows} == {wording.RESEARCH}
    again = tiny_system.read(draw_phantom(0, False), int(rows[0]["seed"]))
    assert float(rows[0]["tumour_probability"]) == pytest.approx(again.tumour_probability, abs=1e-6)
    assert rows[0]["flagged"] == str(again.flagged) and len(rows[0]["scan_sha256"]) == 64
    assert rows[3]["refusal"].startswith("The picture is blank") and rows[3]["score"] == ""


@pytest.mark.slow
def test_the_pdf_has_a_line_for_every_row_and_the_notice_on_every_page(
    tiny_system: MedFedPure,
) -> None:
    work = fill_worklist(*[to_png(draw_phantom(n % 3, True)) for n in range(pdf.ROWS + 2)])
    assert work.start(False) and work.step(tiny_system, False)
    pages = pdf.draw_pages(work, False, {})
    texts = [[t.get_text() for t in page.figure.findobj(Text)] for page in pages]
    assert len(pages) == 3 and all(t.count(wording.RESEARCH) == 2 for t in texts)
    assert [t.count("not read") for t in texts] == [pdf.ROWS - 1, 2, 0]
    assert "Jane" not in str(texts)
    data = pdf.render_pdf(work, False, {})
    assert data.startswith(b"%PDF-") and data.count(b"/Type /Page ") == 3


def test_names_are_escaped_and_hidden_unless_asked_for(tiny_system: MedFedPure) -> None:
    work = Worklist()
    work.add("<script>alert(1)</script>.png", decode_upload(to_png(draw_phantom(1, True))))
    run(tiny_system, work)
    html = table.render(work, False)
    assert "<script" not in html and '<small class="mf-name">&lt;script' in html
    style = (Path(demo.__file__).parent / "rendering" / "style.css").read_text()
    assert re.search(r"\.mf-batch \.mf-name \{ display: none;", style)


def test_an_empty_batch_asks_for_no_reading() -> None:
    assert not Worklist().start(False)
    assert len(Worklist().to_csv(False).splitlines()) == 1


def test_what_cannot_be_judged_has_no_class(
    tiny_system: MedFedPure, work: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Diagnosis, "can_judge", False)
    run(tiny_system, work)
    html = table.render(work, False)
    read = sum(isinstance(result, Reading) for result in work.readings.values())
    assert read and html.count("<td>cannot judge</td>") == read
    assert f"Cannot judge: {read}." in html and "Class changed by the defence: 0" in html
    assert work.to_csv(False).decode().count(",False,") >= read


def test_doubts_about_a_file_stand_by_its_output(system: MedFedPure) -> None:
    head = (draw_phantom(1, True)[0].numpy() * 900).astype(np.uint16)
    work = fill_worklist(encode_native(build_data_set(head, 12, Modality="CT"), head))
    run(system, work)
    doubt = "The file says it is CT, not MR"
    (row,) = re.findall(r"<tbody>(.*?)</tbody>", table.render(work, False))
    assert f"<small>{doubt}" in row
    (line,) = csv.DictReader(io.StringIO(work.to_csv(False).decode()))
    assert line["doubts"].startswith(doubt) and line["refusal"] == ""


def test_the_tumour_map_has_its_columns(
    mapping_system: MedFedPure, tiny_system: MedFedPure
) -> None:
    found = {}
    for name, system in (("map", mapping_system), ("none", tiny_system)):
        work = fill_worklist(to_png(draw_phantom(1, True)))
        html = run(system, work)[-1]
        (line,) = csv.DictReader(io.StringIO(work.to_csv(False).decode()))
        found[name] = html, line
    html, line = found["map"]
    d = mapping_system.read(draw_phantom(1, True))
    assert line["where"] == describe_where(d) and line["where"] in html.replace("&gt;", ">")
    regions = find_regions(d)
    assert regions is not None and line["tumour_regions"] == str(regions.count)
    assert float(line["tumour_area"]) == pytest.approx(regions.head_share)
    html, line = found["none"]
    assert (
        line["where"] == line["tumour_area"] == line["tumour_regions"] == ""
        and "<td>\N{EN DASH}<small></small>" in html
    )


def read_csv(work: Worklist, each: bool) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(work.to_csv(each).decode())))


def test_the_shares_of_the_csv_add_up_to_the_log_odds(mapping_system: MedFedPure) -> None:
    work = fill_worklist(*[to_png(draw_phantom(n, n == 1)) for n in range(2)])
    run(mapping_system, work)
    for n, line in enumerate(read_csv(work, False)):
        d = mapping_system.read(draw_phantom(n, n == 1))
        shares = [float(line[f"expert_{k}_share"]) for k in (1, 2, 3)]
        assert shares == pytest.approx(d.expert_shares.tolist(), abs=1e-6)
        assert float(line["overall_share"]) == pytest.approx(d.overall_share, abs=1e-6)
        odds = torch.tensor(float(line["tumour_probability"])).logit()
        assert sum(shares) + float(line["operating_point"]) == pytest.approx(float(odds), abs=1e-4)


def test_a_volume_has_an_answer_once_all_its_slices_are_read(mapping_system: MedFedPure) -> None:
    work = fill_worklist(to_png(draw_phantom(1, True)), volume(5))
    *before, done = run(mapping_system, work, each=True)
    assert all("mf-volume" not in html for html in before)
    readings = {n: r for part in read_slices(mapping_system, decode_upload(volume(5)).volume)
                for n, r in part.items()}  # fmt: skip
    answer = answer_volume(readings)
    assert answer is not None and len(answer.slices) == 3
    picture, *lines = read_csv(work, True)
    assert picture["volume_tumour_probability"] == picture["volume_slices"] == ""
    assert len(lines) == 5 and lines[0]["status"] == "refused"  # blank
    for line in lines:
        probability = float(line["volume_tumour_probability"])
        assert probability == pytest.approx(answer.tumour_probability, abs=1e-5)
        assert line["volume_slices"] == " ".join(str(n + 1) for n in answer.slices)
    (row,) = re.findall(r'<tr class="mf-volume">(.*?)</tr>', done)
    assert "<td>all 5</td>" in row and describe_answer(readings) in row
    assert done.endswith(f"{row}</tr></tbody></table></div>")
    middle = table.render(work, False)  # the answer stays where the middle slice alone is shown
    assert row in middle and [line["slice"] for line in read_csv(work, False)] == ["1", "3"]
    assert read_csv(work, False)[1]["volume_slices"] == lines[0]["volume_slices"]


def test_a_volume_of_which_a_slice_is_missing_has_no_answer(
    mapping_system: MedFedPure, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = fill_worklist(volume(4))
    run(mapping_system, work)  # the middle slice
    assert work.list_volumes() == {}
    run(mapping_system, work, each=True)
    assert list(work.list_volumes()) == [1]
    work.readings[1, 2] = "The reading failed: out of memory"
    assert work.list_volumes() == {} and "mf-volume" not in table.render(work, True)
    assert {line["volume_slices"] for line in read_csv(work, True)} == {""}
    monkeypatch.setattr(worklist, "MAX_SCANS", 2)
    work = fill_worklist(volume(4))  # no room but for its middle slice
    run(mapping_system, work, each=True)
    assert len(work.readings) == 1 and work.list_volumes() == {}


def test_the_pdf_has_the_answer_below_the_slices(mapping_system: MedFedPure) -> None:
    work = fill_worklist(volume(4), to_png(draw_phantom(1, True)))
    run(mapping_system, work, each=True)
    page = pdf.draw_pages(work, True, {})[0]
    texts = [t for t in page.figure.findobj(Text) if t.get_text()]
    (sentence,) = [answer for _, _, answer in table.list_entries(work, True) if answer]
    lines = textwrap.wrap(sentence, pdf.MAX_LINE)
    tops = {t.get_text(): t.get_position()[1] for t in texts}
    (slice_4,) = [tops[text] for text in tops if text == "4 of 4"]
    (file_2,) = [tops[text] for text in tops if text == "2"]
    assert len(lines) > 1 and slice_4 < tops[lines[0]] < tops[lines[-1]] < file_2


@pytest.mark.parametrize(
    ("count", "area", "words"),
    [(0, 0.0, "none"), (2, 0.0, "outside the head"), (1, 0.004, "< 1 %"), (1, 0.3, "30 %")],
)
def test_none_is_said_where_the_map_marks_no_region(
    reading: Reading, count: int, area: float, words: str
) -> None:
    marked = replace(reading, tumour_regions=count, tumour_area=area)
    assert table.format_area(marked) == words
