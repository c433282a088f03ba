"""Answer for a volume: the rule by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from core.diagnosis import Diagnosis
from core.pipeline import BATCH_SIZE, MedFedPure
from core.scan import Volume
from demo.analysis.regions import find_regions
from demo.analysis.volume import SliceReading, answer_volume, read_slices
from demo.phantom import draw_phantom


def make(*log_odds: float | None) -> dict[int, SliceReading | None]:
    """Make a volume's readings; None is a blank slice."""
    return {
        i: None if value is None else SliceReading(0.0, False, True, value, None)
        for i, value in enumerate(log_odds)
    }


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_a_tumour_in_three_of_many_slices_is_the_answer() -> None:
    answer = answer_volume(make(*[-4.0] * 20, 2.0, 3.0, 1.0, *[-4.0] * 20))
    assert answer is not None
    assert answer.slices == (20, 21, 22) and answer.apart == 0
    assert answer.tumour_probability == pytest.approx(sigmoid(2.0))


def test_one_slice_alone_does_not_decide() -> None:
    answer = answer_volume(make(-3, -3, 4, -3, -3))
    assert answer is not None and answer.tumour_probability == pytest.approx(sigmoid(-2 / 3))


def test_blank_and_unjudged_slices_are_passed_over() -> None:
    readings = make(5.0, None, 5.0, 4.0, 1.0, 1.0)
    far = readings[2]
    assert far is not None
    readings[2] = replace(far, can_judge=False)
    answer = answer_volume(readings)
    assert answer is not None and answer.slices == (0, 3, 4)
    assert answer.tumour_probability == pytest.approx(sigmoid(10 / 3))


def test_three_slices_pass_over_two_and_no_more() -> None:
    near = answer_volume(make(9.0, None, 9.0, None, 9.0, 0.0, 0.0))
    assert near is not None and near.slices == (0, 2, 4)
    far = answer_volume(make(9.0, None, None, None, 9.0, 9.0, None, 1.0, 1.0))
    assert far is not None and far.slices == (4, 5, 7) and far.apart == 1
    assert far.tumour_probability == pytest.approx(sigmoid(19 / 3))


def test_where_no_three_slices_are_near_fewer_decide() -> None:
    pair = answer_volume(make(5.0, None, None, None, 1.0, 2.0, None, None, None, 9.0))
    assert pair is not None and pair.slices == (4, 5) and pair.apart == 2
    assert pair.tumour_probability == pytest.approx(sigmoid(1.5))
    alone = answer_volume(make(-2.0, None, None, None, -1.0))
    assert alone is not None and alone.slices == (4,) and alone.apart == 0
    assert alone.tumour_probability == pytest.approx(sigmoid(-1.0))


def test_an_unjudged_slice_inside_a_tumour_does_not_hide_it() -> None:
    readings = make(9.0, 9.0, 0.0, 9.0, 9.0, *[-4.0] * 6)
    middle = readings[2]
    assert middle is not None
    readings[2] = replace(middle, can_judge=False)
    answer = answer_volume(readings)
    assert answer is not None and answer.tumour_probability == pytest.approx(sigmoid(9.0))


def test_short_volumes_and_empty_ones() -> None:
    answer = answer_volume(make(1.0, 3.0))
    assert answer is not None and answer.tumour_probability == pytest.approx(sigmoid(2.0))
    alone = answer_volume(make(-1.0))
    assert alone is not None and alone.slices == (0,)
    assert answer_volume({}) is None and answer_volume(make(None)) is None


def test_a_slice_is_summarised(mapped: Diagnosis) -> None:
    found = SliceReading.of(mapped)
    assert found.tumour_probability == pytest.approx(mapped.tumour_probability, abs=1e-5)
    regions = find_regions(mapped)
    assert regions is not None and found.area == regions.head_share
    assert SliceReading.of(replace(mapped, tumour_map=None)).area is None


def test_batches_of_slices_are_read_as_slices_alone(mapping_system: MedFedPure) -> None:
    mapping_system = mapping_system.with_options(policy="floor")  # whose answer has a seed
    heads = [draw_phantom(n, n % 2 == 1)[0].numpy() * 255 for n in range(BATCH_SIZE + 2)]
    heads[1] = np.zeros_like(heads[1])
    volume = Volume(np.stack(heads), (0.0, 255.0), "DICOM")
    parts = list(read_slices(mapping_system, volume, seed=5))
    assert [list(part) for part in parts] == [
        [*range(BATCH_SIZE)],
        [BATCH_SIZE, BATCH_SIZE + 1],
    ]
    assert parts[0][1] is None  # blank
    for number in (0, BATCH_SIZE):
        found = parts[number // BATCH_SIZE][number]
        alone = mapping_system.read(volume.slice(number), 5)
        other = mapping_system.read(volume.slice(number), 6)
        assert found is not None
        assert found.tumour_probability == pytest.approx(alone.tumour_probability, abs=1e-6)
        assert found.tumour_probability != pytest.approx(other.tumour_probability, abs=1e-6)
