"""A batch adapted to its site: the readings of an adapted system, for the session alone."""

from __future__ import annotations

import copy
import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from core.detector import Detector, find_threshold
from core.pipeline import MedFedPure
from core.scan import Volume, from_uint8, to_png
from core.site.doubts import MIN_SCANS
from core.site.operating_point import SiteError, find_shift, shift_log_odds
from demo.analysis.volume import answer_volume, read_slices
from demo.batch import pdf, site, table
from demo.batch.reading import Reading
from demo.batch.tab import BUSY_MESSAGE, adapt_batch
from demo.batch.worklist import Worklist
from demo.phantom import draw_phantom
from demo.serving.uploads import Upload, decode_upload

COUNT = 12  # scans that are really read; the limit is lowered to that


@pytest.fixture(scope="module")
def wide(tiny_system: MedFedPure) -> MedFedPure:
    """A system whose outputs differ, that reads all scans as tumours and flags them all."""
    system = copy.deepcopy(tiny_system)
    for classifier in (system.classifier, system.plain):
        classifier.temperature.fill_(1e-2)
    scans = torch.stack([draw_phantom(n, n % 2 == 0) for n in range(COUNT)])
    with torch.no_grad():
        lowest = float(system.classifier_logits(scans).diff(dim=1).min())
    shift_log_odds(system.classifier, 4 - lowest)
    system.detector.thresholds.fill_(-1e3)
    return system.with_options(policy="floor")  # whose answers depend on the threshold


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("core.site.doubts", "demo.batch.site"):
        monkeypatch.setattr(f"{module}.MIN_SCANS", COUNT)


@pytest.fixture(scope="module")
def read_once(wide: MedFedPure) -> Worklist:
    work = Worklist()
    for n in range(COUNT):
        work.add(f"Jane Doe {n}.png", decode_upload(to_png(draw_phantom(n, n % 2 == 0))))
    return finish(work, wide)


@pytest.fixture
def work(read_once: Worklist) -> Worklist:
    return replace(
        read_once,
        readings=dict(read_once.readings),
        scans=list(read_once.scans),
        names=list(read_once.names),
    )


def finish(work: Worklist, system: MedFedPure) -> Worklist:
    work.start(False)
    while work.step(system, False):
        pass
    return work


def adapt(work: Worklist, system: MedFedPure) -> None:
    """Adapt scans that are all read as tumours: the share is named, then moved to one half."""
    work.adapt(system, 0.45)
    work.prevalence = 0.5


def results(work: Worklist) -> list[Reading]:
    found = [result for _, result in work.list_rows(each=False)]
    assert all(isinstance(result, Reading) for result in found)
    return found  # type: ignore[return-value]


@pytest.mark.usefixtures("few")
def test_the_numbers_are_those_of_an_adapted_system(wide: MedFedPure, work: Worklist) -> None:
    before = results(work)
    adapt(work, wide)
    assert len(work.list_waiting(False)) > 0  # no longer purified as deeply: to be read again
    finish(work, wide)
    found = results(work)
    expected = find_threshold(torch.tensor([r.score for r in before]), 0.05)
    adapted = copy.deepcopy(wide)
    adapted.detector.thresholds.fill_(expected)
    shifts = work.find_shifts()
    shift_log_odds(adapted.classifier, shifts.defended)
    shift_log_odds(adapted.plain, shifts.undefended)
    assert shifts.defended < 0
    for (scan, _), reading in zip(work.list_rows(False), found, strict=True):
        assert scan.levels is not None
        alone = adapted.read(from_uint8(scan.levels), 0)
        for name in ("tau", "flagged", "t_star", "operating_point"):
            assert getattr(reading, name) == pytest.approx(getattr(alone, name), rel=1e-5)
        for name in ("tumour_probability", "tumour_probability_undefended"):
            assert getattr(reading, name) == pytest.approx(getattr(alone, name), abs=1e-3)
    assert sum(r.tumour_probability >= 0.5 for r in found) == 7  # of 12, at most .6
    said = table.describe_site(work)
    assert "'tumour' 12 of 12 before, 7 of 12 now; attack suspected 12 before, 0 now." in said
    assert "The scans may hold one class: nearly all scans are read as 'tumour'." in said
    assert said in table.render(work, False).replace("&#x27;", "'")


@pytest.mark.usefixtures("few")
def test_another_prevalence_needs_no_reading(wide: MedFedPure, work: Worklist) -> None:
    adapt(work, wide)
    finish(work, wide)
    counts = {}
    for prevalence in (0.3, 0.5, 0.7):
        work.prevalence = prevalence
        counts[prevalence] = sum(r.tumour_probability >= 0.5 for r in results(work))
        assert work.list_waiting(False) == []
    assert counts == {0.3: 4, 0.5: 7, 0.7: 9}  # at most .4, .6 and .8 of 12


@pytest.mark.usefixtures("few")
def test_it_can_be_undone(wide: MedFedPure, work: Worklist) -> None:
    before = results(work)
    adapt(work, wide)
    finish(work, wide)
    assert results(work) != before
    work.restore(wide)
    finish(work, wide)
    for a, b in zip(results(work), before, strict=True):
        assert replace(a, ms=0) == replace(b, ms=0)
    assert table.describe_site(work) == ""


@pytest.mark.usefixtures("few")
def test_scans_that_look_like_one_class_need_a_named_share(
    wide: MedFedPure, work: Worklist
) -> None:
    before = results(work)
    told = adapt_batch(wide, work, True, 50)
    assert "may hold one class, as nearly all scans are read as" in told
    assert "name the share with a tumour by the slider, then adapt." in told
    assert results(work) == before and work.site is None
    assert adapt_batch(wide, work, True, 45) == "" and work.site is not None


def test_too_few_scans_change_nothing(wide: MedFedPure, work: Worklist) -> None:
    before = results(work)
    with pytest.raises(SiteError, match=f"Only 12 scans can be judged: .* at least {MIN_SCANS}"):
        work.adapt(wide, 0.5)
    assert results(work) == before and work.site is None


@pytest.mark.usefixtures("few")
def test_files_carry_the_adaptation_and_clearing_ends_it(wide: MedFedPure, work: Worklist) -> None:
    assert {line["site_shift"] for line in read_csv(work)} == {""}
    adapt(work, wide)
    finish(work, wide)
    lines = read_csv(work)
    assert {float(line["site_shift"]) for line in lines} == {work.find_shifts().defended}
    shown = [float(line["tumour_probability"]) for line in lines]
    assert shown == [r.tumour_probability for r in results(work)]
    pages = pdf.draw_pages(work, False, {})
    texts = [" ".join(t.get_text() for t in page.figure.findobj(Text)) for page in pages]
    assert all("adapted to this site (see the last page)" in text for text in texts)
    assert "12 of 12 before, 7 of 12 now" in texts[-1] and "Jane" not in str(texts)
    work.clear()
    assert work.site is None


def read_csv(work: Worklist, each: bool = False) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(work.to_csv(each).decode())))


@pytest.mark.usefixtures("few")
def test_an_answer_of_the_scan_itself_is_not_read_again(wide: MedFedPure) -> None:
    system = wide.with_options(policy="picture")
    work = Worklist()
    for n in range(COUNT):
        work.add(f"{n}.png", decode_upload(to_png(draw_phantom(n, n % 2 == 0))))
    before = results(finish(work, system))
    adapt(work, system)
    assert work.list_waiting(False) == []
    after = results(work)
    assert all(
        a.tumour_probability < b.tumour_probability for a, b in zip(after, before, strict=True)
    )
    assert all(r.flagged for r in before) and not all(r.flagged for r in after)


@pytest.mark.usefixtures("few")
def test_a_volume_is_answered_at_the_site_s_operating_point(
    wide: MedFedPure, work: Worklist
) -> None:
    heads = np.stack([draw_phantom(n, n % 2 == 0)[0].numpy() * 255 for n in range(3)])
    volume = Volume(heads, (0.0, 255.0), "DICOM")
    work.add("Jane Doe.nii", Upload(None, volume=volume))
    work.start(True)
    while work.step(wide, True):
        pass
    before = answer_volume(work.list_volumes()[COUNT + 1])
    adapt(work, wide)
    assert work.list_volumes() == {}  # no longer purified as deeply: to be read again
    work.start(True)
    while work.step(wide, True):
        pass
    shift = work.find_shifts().defended
    lines = [line for line in read_csv(work, each=True) if line["slices"] == "3"]
    adapted = copy.deepcopy(wide).with_tau(float(lines[0]["tau"]))
    shift_log_odds(adapted.classifier, shift)
    (part,) = read_slices(adapted, volume)
    expected = answer_volume(part)
    assert before is not None and expected is not None
    assert before.tumour_probability > expected.tumour_probability + 0.01
    for line in lines:
        found = float(line["volume_tumour_probability"])
        assert found == pytest.approx(expected.tumour_probability, abs=1e-3)
        odds = sum(float(line[f"expert_{k}_share"]) for k in (1, 2))
        odds += float(line["operating_point"])  # the shift is in it
        found = float(line["tumour_probability"])
        assert found == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-4)


@pytest.mark.usefixtures("few")
def test_a_reading_that_began_before_does_not_count(wide: MedFedPure, work: Worklist) -> None:
    """The visitor may adapt while the last scan is being read."""
    (key, _), *_ = work.readings.items()
    del work.readings[key]
    detect = Detector.forward

    def adapt_meanwhile(detector: Detector, x: torch.Tensor) -> object:
        work.site = site.Site(0.0, COUNT, 0, 0, "")
        return detect(detector, x)

    work.start(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "forward", adapt_meanwhile)
        work.step(wide, False)
    assert key not in work.readings


def test_the_tab_says_why_it_does_not_adapt(wide: MedFedPure, work: Worklist) -> None:
    assert "Only 12 scans can be judged" in adapt_batch(wide, work, True, 50)
    work.running = True
    expected = f'<p class="mf-bad" role="status">{BUSY_MESSAGE}</p>'
    assert adapt_batch(wide, work, True, 50) == expected and work.site is None


@pytest.mark.usefixtures("few")
def test_the_tab_adapts_and_undoes(wide: MedFedPure, work: Worklist) -> None:
    assert adapt_batch(wide, work, True, 30) == ""
    assert "if 30% of its scans have a tumour" in table.render(work, False)
    assert adapt_batch(wide, work, False, 30) == "" and work.site is None


def test_no_point_is_moved_while_too_few_are_read_again(reading: Reading) -> None:
    assert site.find_shifts([reading] * (MIN_SCANS - 1), 0.5) == site.Shifts()
    odds = torch.full((MIN_SCANS,), 0.9, dtype=torch.float64).logit()
    assert site.find_shifts([reading] * MIN_SCANS, 0.5).defended == find_shift(odds, 0.5)


def test_no_stability_is_claimed_at_another_operating_point(reading: Reading) -> None:
    moved = site.Shifts(defended=-3.0).move(reading)
    assert moved.tumour_probability < 0.5 and moved.stable is moved.stable_radius is None
    assert "stability not tried" in table._render_stability(moved)
    assert site.Shifts(undefended=-1.0).move(reading).stable is True
    unstable = replace(reading, stable=False)
    assert table.format_defended(unstable).endswith("90\N{NO-BREAK SPACE}% !")
