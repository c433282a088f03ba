"""Selection of a file, a slice or an example, and the scores of a whole series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import Volume, to_uint8
from core.scan.volume import Doubt
from demo.analysis.volume import SliceReading, VolumeAnswer, answer_volume
from demo.explore import selection, slices
from demo.explore.series import Series, build_series
from demo.phantom import draw_phantom
from demo.rendering.volume_answer import describe_answer
from demo.serving.uploads import Upload, decode_upload


def stack(*scans: Tensor) -> Volume:
    data = np.concatenate([to_uint8(scan) for scan in scans]).astype(np.float32)
    return Volume(data * 4, (0.0, 1020.0), "DICOM", spacing=(1.0, 1.0), gap=3.0)


def test_the_middle_slice_comes_first_and_any_can_be_chosen() -> None:
    scans = [draw_phantom(seed, False) for seed in range(3)]
    series = Series(stack(*scans))
    assert torch.equal(selection.view_selection(series).scan, scans[1])
    series.index = 2
    shown = selection.view_selection(series)
    assert torch.equal(shown.scan, scans[2]) and "3 slices" in shown.line
    assert series.get_slider_value()["index"] == 2
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        Series(stack(*scans), index=3)


def test_proportions_are_not_called_millimetres(scan: Tensor) -> None:
    volume = replace(stack(scan), spacing=(1.0, 2.0))
    assert "Pixels of 2 x 1 mm." in Series(volume).describe()
    assert "mm" not in " ".join(Series(replace(volume, is_in_mm=False)).describe())


def test_a_blank_slice_is_shown_but_not_read(scan: Tensor) -> None:
    series = Series(stack(torch.zeros_like(scan), scan), index=0)
    shown = selection.view_selection(series)
    assert shown.scan is None and shown.view["scan"] is None and shown.view["file"]
    assert selection.BLANK_MESSAGE in shown.line


def test_a_colour_picture_is_refused_and_read_on_request(photograph: bytes) -> None:
    series = selection.receive(decode_upload(photograph))
    assert isinstance(series, Series)
    refused = selection.view_selection(series)
    assert refused.scan is None and 'role="alert"' in refused.line and refused.view["scan"]
    insisted = selection.view_selection(series, insists=True)
    assert insisted.scan is not None and selection.COLOUR_WARNING in insisted.line
    assert insisted.doubts == (selection.COLOUR_WARNING,)


def test_doubts_about_a_file_go_with_its_scan(scan: Tensor) -> None:
    volume = replace(stack(scan), notes=("A plain fact.", Doubt("The picture is dark.")))
    assert selection.view_selection(Series(volume)).doubts == ("The picture is dark.",)


def test_refusals_are_escaped_alerts() -> None:
    assert selection.receive(Upload(None, "Too <b>large</b>.")) == "Too <b>large</b>."
    line = selection.view_selection(None, "Too <b>large</b>.").line
    assert 'role="alert"' in line and "<b>" not in line
    assert 'role="status"' in selection.view_selection(None).line


def test_sides_are_said_in_words(scan: Tensor) -> None:
    marked = replace(stack(scan), marks=("R", "L", "A", "P"))
    assert (
        "On the picture&#x27;s left is the patient&#x27;s right."
        in selection.view_selection(Series(marked)).line
    )
    assert "does not say which side is left" in selection.view_selection(Series(stack(scan))).line


def test_an_example_is_the_scan_itself(scan: Tensor) -> None:
    assert torch.equal(build_series(to_uint8(scan)).get_scan(), scan)


def list_scores(series: Series) -> list[float]:
    return [r.score for _, r in sorted(series.readings.items()) if r is not None]


def find_unjudged(series: Series) -> set[int]:
    return {n for n, r in series.readings.items() if r is not None and not r.can_judge}


def test_every_slice_gets_the_detector_s_score(tiny_system: MedFedPure, scan: Tensor) -> None:
    series = Series(stack(torch.zeros_like(scan), scan, draw_phantom(2, False)))
    seen = [dict(series.readings) for _ in slices.read_slices(tiny_system, series)]
    assert [len(scores) for scores in seen] == [0, 3]  # before the batch and after it
    x = torch.stack([scan, draw_phantom(2, False)])
    expected = tiny_system.score(tiny_system.detect(x)).tolist()
    assert series.readings[0] is None
    assert list_scores(series) == pytest.approx(expected, abs=1e-4)
    marked = sum(score > tiny_system.tau for score in expected)
    assert f"3 of 3 slices read, {marked or 'none'} marked" in series.summary
    assert "nothing of disease" in series.summary
    value = series.get_slider_value()
    assert [n for n, _ in value["scores"]] == [1, 2]
    assert value["tau"] == tiny_system.tau


def test_scores_of_batches_are_those_of_single_slices(tiny_system: MedFedPure) -> None:
    count = 2 * BATCH_SIZE + 1
    scans = [draw_phantom(seed, seed % 2 == 1) for seed in range(count)]
    series = Series(stack(*scans))
    seen = [dict(series.readings) for _ in slices.read_slices(tiny_system, series)]
    assert [len(scores) for scores in seen] == [0, BATCH_SIZE, 2 * BATCH_SIZE, count]
    alone = [float(tiny_system.score(tiny_system.detect(scan[None]))) for scan in scans]
    assert list_scores(series) == pytest.approx(alone, abs=1e-4)


def test_a_new_scoring_forgets_the_old(tiny_system: MedFedPure, scan: Tensor) -> None:
    series = Series(stack(scan, scan))
    list(slices.read_slices(tiny_system, series))
    next(slices.read_slices(tiny_system, series))
    assert series.readings == {} and series.answer == ""


def test_slices_that_cannot_be_judged_are_counted(tiny_system: MedFedPure, scan: Tensor) -> None:
    series = Series(stack(torch.zeros_like(scan), scan, draw_phantom(2, False)))
    list(slices.read_slices(tiny_system, series))
    assert find_unjudged(series) == set() and "judged" not in series.summary
    cut = tiny_system.novelty.cut
    before = float(cut)
    try:
        cut.fill_(-1)
        list(slices.read_slices(tiny_system, series))
    finally:
        cut.fill_(before)
    assert find_unjudged(series) == {1, 2}  # a blank slice is blank, no more
    assert "2 cannot be judged (unlike the brain MRI" in series.summary


def test_a_volume_gets_an_answer_and_its_slices_their_probabilities(
    mapping_system: MedFedPure, scan: Tensor
) -> None:
    series = Series(stack(torch.zeros_like(scan), scan, draw_phantom(2, False)))
    list(slices.read_slices(mapping_system, series))
    alone = [mapping_system.read(scan), mapping_system.read(draw_phantom(2, False))]
    value = series.get_slider_value()
    assert [n for n, _ in value["tumour"]] == [n for n, _ in value["area"]] == [1, 2]
    expected = [d.tumour_probability for d in alone]
    assert [p for _, p in value["tumour"]] == pytest.approx(expected, abs=1e-4)
    assert value["best"] == 1 + (expected[1] > expected[0])
    count = sum(d.is_tumour for d in alone)
    assert value["answer"].endswith(
        f"(by slices 2 and 3); {count} of 2 slices say tumour by themselves. The rule: the highest "
        "mean of the log-odds over 2 slices in a row, where up to 2 that are blank or cannot be "
        "judged are passed over; not measured on whole volumes."
    )


def judge(*log_odds: float | None) -> Series:
    """Make a series whose slices are read: None cannot be judged."""
    series = Series(stack(*[torch.zeros(1, 224, 224)] * len(log_odds)))
    series.readings |= {
        n: SliceReading(0.0, False, odds is not None, odds or 0.0, None)
        for n, odds in enumerate(log_odds)
    }
    return series


def test_the_shown_slice_is_one_that_the_answer_rests_on() -> None:
    series = judge(6.0, -6.0, -6.0, 3.0, 4.0, 3.0)
    series.answer = describe_answer(series.readings)
    assert "(by slices 4, 5 and 6)" in series.answer and series.get_slider_value()["best"] == 4


def test_a_scoring_that_begins_meanwhile_mixes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    series = judge(-6.0, 3.0, 4.0, 3.0)
    series.answer = describe_answer(series.readings)

    def begin(readings: Mapping[int, SliceReading | None]) -> VolumeAnswer | None:
        series.readings.clear()  # as another thread may at any time
        return answer_volume(readings)

    monkeypatch.setattr("demo.explore.series.answer_volume", begin)
    value = series.get_slider_value()
    assert value["best"] == 2 and [n for n, _ in value["tumour"]] == [0, 1, 2, 3]
    again = series.get_slider_value()
    assert "best" not in again and again["tumour"] == []
