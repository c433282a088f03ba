from __future__ import annotations

import base64
import io
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_maker
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from core import __main__ as command_line
from core import checkpoint
from core.features import FEATURES
from core.pipeline import MedFedPure
from core.scan import read_scan, read_volume, to_png, to_uint8
from core.weights import load
from demo import repeat
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.analysis.volume import SliceReading
from demo.explore import analyse
from demo.rendering import images, wording
from demo.rendering.flag_reasons import MEASUREMENTS, describe_reason
from demo.rendering.shares import describe_shares
from demo.rendering.tumour_map import describe_where
from demo.rendering.volume_answer import describe_answer
from demo.report import document, pdf
from demo.report.buttons import NO_ANALYSIS_MESSAGE, _make_pdf, _make_png
from demo.report.download import GeneratedFile
from demo.report.page import DPI, LEFT, MIN_FACTOR, RIGHT, SIDE, TOP, Page
from tests.small_system import write_weights


@pytest.fixture(scope="module")
def folder(tiny_system: MedFedPure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a weights folder of an untrained system."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(tiny_system, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> MedFedPure:
    return load(folder, "cpu")


def run_analysis(system: MedFedPure, scan: Tensor, **settings: Any) -> Analysis:
    *_, shown = analyse.analyse(system, Analysis(scan, AttackSettings(**settings)), {})
    assert shown.analysis is not None
    return shown.analysis


@pytest.fixture(scope="module")
def done(loaded: MedFedPure, scan: Tensor) -> Analysis:
    return run_analysis(loaded, scan, steps=2, seed=5, aim="mixture", truth="tumour")


@pytest.fixture(scope="module")
def pages(done: Analysis) -> list[Page]:
    return pdf.draw_pages(done)


def words(page: Page) -> list[str]:
    return [text.get_text() for text in page.figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "none", "seed": 3},
        {"kind": "fgsm", "norm": "l2", "eps": 2.0},
        {"steps": 2, "aim": "defence", "seed": 7},
        {"steps": 3, "aim": "mixture", "truth": "no tumour", "eps": 0.03},
    ],
)
def test_the_json_alone_repeats_the_analysis(
    loaded: MedFedPure, scan: Tensor, settings: dict[str, Any]
) -> None:
    before = run_analysis(loaded, scan, **settings)
    again = document.repeat_analysis(loaded, json.loads(document.to_json(before)))
    assert again.settings == before.settings and torch.equal(again.scan, before.scan)
    assert [name for name, _ in again.readings] == [name for name, _ in before.readings]
    if before.attacked_scan is not None:
        assert again.attacked_scan is not None
        assert torch.equal(again.attacked_scan, before.attacked_scan)
    rows = list(repeat.compare(json.loads(document.to_json(before)), again))
    assert len(rows) == 4 * len(before.readings)
    assert all(now == pytest.approx(was, abs=1e-5) for _, was, now in rows)


def test_doubts_about_the_file_are_reported(done: Analysis) -> None:
    doubt = "The file says it is CT, not MR: the models were trained on MR only. " * 2
    doubtful = replace(done, doubts=(doubt.strip(),))
    assert json.loads(document.to_json(doubtful))["doubts"] == [doubt.strip()]
    lines = words(pdf.draw_pages(doubtful)[0])
    (start,) = (n for n, line in enumerate(lines) if line.startswith("-  The file says it is CT"))
    assert len(lines[start]) <= pdf.MAX_LINE and "trained on MR only." in lines[start + 1]


def test_the_answer_for_the_volume_is_reported(done: Analysis) -> None:
    assert json.loads(document.to_json(done))["volume_answer"] is None
    assert not any(line.startswith(f"-  {pdf.WHOLE}") for line in words(pdf.draw_pages(done)[0]))
    readings = {n: SliceReading(0.0, False, True, n - 3.0, None) for n in range(6)}
    answer = describe_answer(readings)
    whole = replace(done, volume_answer=answer)
    assert json.loads(document.to_json(whole))["volume_answer"] == answer
    lines = words(pdf.draw_pages(whole)[0])
    (start,) = (n for n, line in enumerate(lines) if line.startswith(f"-  {pdf.WHOLE}"))
    said = " ".join(line.strip() for line in lines[start:])
    assert said.startswith(f"-  {pdf.WHOLE} {answer}") and "(by slices 4, 5 and 6)" in answer


@pytest.mark.parametrize("options", [{"score": "paper", "policy": "paper", "d": 0.011}])
def test_a_report_repeats_the_papers_options(
    loaded: MedFedPure, scan: Tensor, options: dict[str, Any]
) -> None:
    before = run_analysis(loaded.with_options(**options), scan, steps=2)
    facts = json.loads(document.to_json(before))
    assert "--score paper --policy paper --d 0.011" in facts["repeat"]["clean reading"]
    again = document.repeat_analysis(loaded, facts)
    assert again.options == options and again.clean is not None and before.clean is not None
    assert again.clean.score == pytest.approx(before.clean.scores["paper"], abs=1e-5)


def test_its_command_lines_repeat_it(
    done: Analysis, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    facts = json.loads(document.to_json(done))
    Path(f"{document.NAME}.json").write_bytes(document.to_json(done))
    pictures = {"scan.png": facts["scan"], "attacked-scan.png": facts["attack"]}
    for name, held in pictures.items():
        Path(name).write_bytes(base64.b64decode(held["png"].partition(",")[2]))
    whole, *readings = (line.split() for line in facts["repeat"].values())
    assert whole[:3] == ["python", "-m", "demo.repeat"]
    assert repeat.main([*whole[3:], "--weights", str(folder)]) == 0
    assert "DIFFERS" not in capsys.readouterr().out
    for line, name in zip(readings, ("clean", "attacked"), strict=True):
        assert line[:3] == ["python", "-m", "core"]
        assert command_line.main([*line[3:], "--weights", str(folder)]) == 0
        printed = json.loads(capsys.readouterr().out)
        for number in repeat.NUMBERS:
            assert printed[number] == pytest.approx(facts[name][number], abs=1e-4)


def test_a_changed_number_is_found(
    done: Analysis, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads(document.to_json(done))
    facts["attacked"]["tumour_probability"] += 0.1
    path = tmp_path / "report.json"
    path.write_text(json.dumps(facts))
    assert repeat.main([str(path), "--weights", str(folder)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "DIFFERS" in line] == [said[7]]


@pytest.mark.parametrize("change", ["scan", "sha256", "settings", "list"])
def test_another_file_is_no_report(loaded: MedFedPure, done: Analysis, change: str) -> None:
    facts: Any = json.loads(document.to_json(done))
    if change == "scan":
        assert done.attacked_scan is not None
        facts["scan"]["png"] = facts["attack"]["png"]
    elif change == "sha256":
        del facts["scan"]["sha256"]
    elif change == "settings":
        facts["attack"]["eps"] = 9.0
    else:
        facts = [1, 2]
    with pytest.raises(ValueError, match="report"):
        document.repeat_analysis(loaded, facts)


def test_it_says_what_it_was_made_with(
    done: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = checkpoint.read_manifest(folder)
    monkeypatch.setattr(document, "read_manifest", lambda: files)
    facts = json.loads(document.to_json(done))
    assert facts["weights_sha256"] == {name: file.sha256 for name, file in files.items()}
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["scan"]["sha256"] == document.hash_levels(to_uint8(done.scan))
    assert facts["attack"]["seed"] == facts["clean"]["seed"] == 5
    assert wording.RESEARCH in facts["notice"]
    trained_elsewhere = {"split_sha256": "another split"}
    assert document.find_weight_hashes(trained_elsewhere) == {} == document.find_weight_hashes({})


def test_the_pdf_has_its_pages_and_the_notice_on_each(done: Analysis, pages: list[Page]) -> None:
    data = pdf.render_pdf(done)
    assert data.startswith(b"%PDF-") and data.count(b"/Type /Page ") == 2
    assert len(pages) == 2
    for number, page in enumerate(pages, start=1):
        assert words(page).count(wording.RESEARCH) == 2  # above and below
        assert f"MedFedPure, page {number} of 2" in words(page)
    first, second = map(words, pages)
    assert {"Clean scan", "Attacked scan", "Without defence", "With defence"} <= set(first)
    assert document.hash_levels(to_uint8(done.scan)) in second
    assert "python -m demo.repeat" in str(second)


def test_nothing_of_a_page_is_cut_off(pages: list[Page]) -> None:
    for page in pages:
        page.figure.savefig(io.BytesIO(), format="png", dpi=DPI)  # measures the letters
        title, notice = (
            next(t for t in page.figure.findobj(Text) if t.get_text() == words)
            for words in (pdf.TITLE, wording.RESEARCH)
        )
        assert title.get_window_extent(dpi=DPI).x1 < notice.get_window_extent(dpi=DPI).x0
        width, height = page.figure.get_size_inches() * DPI
        for text in page.figure.findobj(Text):
            if text.get_text():
                box = text.get_window_extent(dpi=DPI)
                assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height


def test_every_reason_fits_its_line(done: Analysis) -> None:
    """The longest words of all, on a scan that is not flagged."""
    words = max(MEASUREMENTS, key=lambda name: len(MEASUREMENTS[name]))
    assert done.clean is not None
    clean = replace(done.clean, flagged=False, tau=done.clean.score + 12.3)
    clean = replace(clean, contributions={**dict.fromkeys(FEATURES, -1.0), words: 7.5})
    page = pdf.draw_pages(replace(done, clean=clean))[0]
    page.figure.savefig(io.BytesIO(), format="png", dpi=DPI)
    line = describe_reason(clean)
    (text,) = (t for t in page.figure.findobj(Text) if t.get_text() == line)
    assert "12.30 points short" in line
    assert text.get_window_extent(dpi=DPI).x1 <= RIGHT * DPI + 1


def test_the_report_says_what_each_measurement_added(done: Analysis) -> None:
    facts = json.loads(document.to_json(done))
    for name, d in done.readings:
        held = facts[name]
        assert tuple(held["contributions"]) == FEATURES
        total = held["usual_score"] + sum(held["contributions"].values())
        assert total == pytest.approx(held["scores"]["fused"], abs=1e-5)
        assert describe_reason(d) in words(pdf.draw_pages(done)[0])


def test_the_tumour_map_is_reported(mapping_system: MedFedPure, scan: Tensor) -> None:
    done = run_analysis(mapping_system, scan, steps=2)
    d = done.clean
    assert d is not None and d.tumour_map is not None
    held = json.loads(document.to_json(done))["clean"]
    assert held["where"] == describe_where(d)
    torch.testing.assert_close(torch.tensor(held["tumour_map"]), d.tumour_map, atol=6e-4, rtol=0)
    cells = torch.zeros(56, 56)
    cells[20:23, 30:34] = 0.9
    shown = replace(done, clean=replace(d, tumour_map=cells))
    first = pdf.draw_pages(shown)[0]
    said = " ".join(words(first))
    assert describe_where(shown.clean) in said and "Tumour map" in words(first)
    assert " ".join(describe_shares(d, done.sides).split()[-9:]) in said
    drawn = images.colour_tumour_map(d.scan_read, cells, 0.5)
    marked = (drawn == images.OUTLINE).all(-1)
    assert marked[80:92, 120:136].sum() == marked.sum() == 2 * 16 + 2 * 10  # inside the edge
    assert (drawn[:60, :, 0] == to_uint8(d.scan)[0][:60]).all()


def crowd(done: Analysis, doubts: int) -> Analysis:
    """Return an analysis with long words on its maps, and doubts of two lines each."""
    cells = torch.zeros(56, 56)
    cells[10:20, 10:20] = cells[30:34, 40:44] = 0.995
    both: Any = {
        name: replace(d, tumour_map=cells, novelty=0.0, novelty_limit=1.0)
        for name, d in done.readings
    }
    said = tuple(f"Doubt {n}: {'and it goes on ' * 9}to its end." for n in range(doubts))
    return replace(done, doubts=said, **both)


def check_layout(page: Page) -> None:
    """Check that no two texts overlap, and that all but the footer's own end above it."""
    page.figure.savefig(io.BytesIO(), format="png", dpi=DPI)  # measures the letters
    held = [
        (t.get_text(), t.get_window_extent(dpi=DPI))
        for t in page.figure.findobj(Text)
        if t.get_text()
    ]
    assert all(box.x0 >= 0 and box.x1 <= RIGHT * DPI + 2 for _, box in held)
    footer = min((box for text, box in held if text == wording.RESEARCH), key=lambda box: box.y1)
    own = [text for text, box in held if box.y0 < footer.y1 + 4 / 72 * DPI]  # its frame
    assert len(own) == 2 and own[0] == wording.RESEARCH and own[1].startswith("MedFedPure, page")
    for (one, a), (other, b) in itertools.combinations(held, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 0 or down <= 0, (one, other)


def test_a_crowded_first_page_is_drawn_closer(mapping_system: MedFedPure, scan: Tensor) -> None:
    done = crowd(run_analysis(mapping_system, scan, steps=2), 2)
    page, _ = pdf.draw_pages(done)
    assert MIN_FACTOR <= page.factor < 1
    check_layout(page)
    assert done.attacked is not None
    last = " ".join(describe_shares(done.attacked, done.sides).split()[-9:])
    assert last in " ".join(words(page))
    held = [t for t in page.figure.findobj(Text) if t.get_text().startswith("Map: ")]
    (column,) = (t for t in page.figure.findobj(Text) if t.get_text() == "With defence")
    assert {t.get_position()[0] for t in held} == {column.get_position()[0]} and len(held) == 2


@pytest.mark.parametrize("doubts", [6, 12])
def test_what_does_not_fit_the_first_page_gets_one_of_its_own(
    mapping_system: MedFedPure, scan: Tensor, doubts: int
) -> None:
    done = crowd(run_analysis(mapping_system, scan, steps=2), doubts)
    first, second, third = pdf.draw_pages(done)
    for page in (first, second):
        assert page.factor >= MIN_FACTOR
        check_layout(page)
    titles = ("Final outputs of the models", "Attack detector", "Experts of the mixture: shares")
    on = [[any(t.startswith(title) for t in words(p)) for title in titles] for p in (first, second)]
    assert on[0][0] and on[1][2] and all(a != b for a, b in zip(*on, strict=True))
    both = " ".join(words(first) + words(second))
    assert all(both.count(doubt.split(":")[0] + ":") == 1 for doubt in done.doubts)
    assert f"{pdf.NO_ADVICE}; the rest: page 2; limits: page 3" in words(first)
    assert "Limits" in words(third) and "MedFedPure, page 3 of 3" in words(third)
    (alone,) = pdf.draw_pages(done, is_alone=True)
    assert f"{pdf.NO_ADVICE}; limits and the rest: in the PDF" in words(alone)


def test_the_png_names_no_page_that_it_lacks(done: Analysis) -> None:
    (page,) = pdf.draw_pages(done, is_alone=True)
    assert "MedFedPure, page 1 of 1" in words(page) and "page 2" not in " ".join(words(page))
    assert f"{pdf.NO_ADVICE}; limits: in the PDF" in words(page)
    assert f"{pdf.NO_ADVICE}; limits: page 2" in words(pdf.draw_pages(done)[0])


def test_the_png_shows_the_scan_dot_for_dot(done: Analysis) -> None:
    with Image.open(io.BytesIO(pdf.render_png(done))) as picture:
        shown = np.asarray(picture.convert("RGB"))
    top, left, side = round((TOP + 0.18) * DPI), round(LEFT * DPI), round(SIDE * DPI)
    levels = shown[top : top + side, left : left + side]
    assert np.array_equal(levels, np.repeat(to_uint8(done.scan)[0][..., None], 3, -1))


def test_an_unattacked_or_stopped_analysis_is_reported_too(
    loaded: MedFedPure, scan: Tensor
) -> None:
    clean = run_analysis(loaded, scan, kind="none")
    assert "Attacked scan" not in words(pdf.draw_pages(clean)[0])
    steps = analyse.analyse(loaded, Analysis(scan, AttackSettings(steps=2)), {})
    stopped = next(s.analysis for s in steps if s.analysis and s.analysis.steps)
    assert "The attack was stopped." in words(pdf.draw_pages(stopped)[0])


def test_no_header_of_a_file_gets_in(loaded: MedFedPure) -> None:
    stored = np.tile(np.arange(64, dtype=np.uint16) * 50, (64, 1))
    file = dicom_maker.encode_native(dicom_maker.build_data_set(stored, 12), stored)
    assert b"Nobody^Secret" in file and b"SECRET-17" in file
    done = run_analysis(loaded, read_volume(file).slice(), kind="none")
    texts = document.to_json(done).decode() + str([words(p) for p in pdf.draw_pages(done)])
    for secret in ("Nobody", "Secret", "SECRET", dicom_maker.MR):
        assert secret not in texts
    assert b"Secret" not in pdf.render_png(done) + pdf.render_pdf(done)


def test_nothing_is_left_on_disk_or_in_pyplot(
    done: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    for made in (_make_pdf(done), _make_png(done)):
        assert isinstance(made, GeneratedFile) and made.data
    assert list(tmp_path.iterdir()) == []
    assert "matplotlib.pyplot" not in sys.modules


def test_without_an_analysis_the_buttons_say_so(scan: Tensor) -> None:
    for analysis in (None, Analysis(scan, AttackSettings())):
        assert _make_pdf(analysis) == NO_ANALYSIS_MESSAGE == _make_png(analysis)


def test_the_scan_in_the_report_is_a_file_that_can_be_opened(done: Analysis) -> None:
    png = base64.b64decode(document.build_document(done)["scan"]["png"].partition(",")[2])
    assert torch.equal(read_scan(png), done.scan) and png == to_png(done.scan)
