"""Units are dealt whole, a planted wrong label is found, temperatures are those of others."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from bench.labels.cross_validation import Course, deal_units, read_part, shrink
from bench.labels.disputes import calibrate_log_odds, find_disputed
from train.calibration.calibrate import LOG_TEMPERATURE_SD
from train.config import read_preset
from train.data.dataset import ScanDataset
from train.data.split import Entry

KINDS = ("no tumour", "glioma")


def build_data(
    labels: list[int], units: list[int], scans: np.ndarray | None = None, source: str = "ixi"
) -> ScanDataset:
    entries = tuple(
        Entry(f"{source}/{i:03}.png", f"{i:064}", source, unit, "train", KINDS[y])
        for i, (y, unit) in enumerate(zip(labels, units, strict=True))
    )
    empty = np.zeros((len(labels), 224, 224), np.uint8)
    cells = [f"{source}/{y}" for y in labels]
    pictures = empty if scans is None else scans
    return ScanDataset(pictures, torch.tensor(labels), cells, units, (), entries)


def test_units_stay_whole_and_parts_are_alike():
    # 40 units of 1, 2 or 3 scans; every second one is with tumour
    units = [u for u in range(40) for _ in range(u % 3 + 1)]
    data = build_data([u % 2 for u in units], units)
    dealt = deal_units(data.entries, 5, 0)
    parts = defaultdict(set)
    for unit, part in zip(units, dealt, strict=True):
        parts[unit].add(part)
    assert all(len(found) == 1 for found in parts.values())
    for label in (0, 1):
        held = Counter(p for p, u in zip(dealt, units, strict=True) if u % 2 == label)
        assert sorted(held) == [0, 1, 2, 3, 4]
        assert max(held.values()) - min(held.values()) <= 3  # the largest unit
    assert dealt == deal_units(data.entries, 5, 0) != deal_units(data.entries, 5, 1)


def test_scans_are_averaged():
    scans = np.zeros((1, 224, 224), np.uint8)
    scans[0, :2, :2] = [[10, 20], [30, 41]]
    small = shrink(build_data([0], [0], scans), 112)
    assert small.scans.shape == (1, 112, 112)
    assert small.scans[0, 0, 0] == 25 and small.scans.sum() == 25  # 101 / 4


def test_a_planted_wrong_label_is_disputed_and_nothing_else():
    rng = np.random.default_rng(0)
    truth = [i % 2 for i in range(60)]
    scans = rng.integers(0, 40, (60, 28, 28)).astype(np.uint8)
    scans[:, 4:24, 4:24] += 60
    for i, y in enumerate(truth):
        if y:
            scans[i, 8:20, 8:20] += 120
    labels = list(truth)
    labels[7] = 0
    data = build_data(labels, list(range(60)), scans)
    course = Course(read_preset("smoke"), 640, 16, torch.device("cpu"))
    repeats = []
    for repeat in range(2):
        dealt = deal_units(data.entries, 3, repeat)
        log_odds = torch.zeros(60, dtype=torch.float64)
        for part in range(3):
            out = [i for i, number in enumerate(dealt) if number == part]
            log_odds[out] = read_part(data, out, course, seed=10 * repeat + part)
        repeats.append(calibrate_log_odds(log_odds, dealt, data))
    assert find_disputed(torch.stack(repeats), data.labels) == [7]


def test_every_repeat_must_dispute():
    limit = math.log(9)  # log-odds of .9
    log_odds = torch.tensor(
        [
            [-limit - 0.01, -limit - 0.01, -limit + 0.01, limit + 0.01, -5.0],
            [-limit - 0.01, limit, -9.0, limit + 0.01, -5.0],
        ],
        dtype=torch.float64,
    )
    assert find_disputed(log_odds, torch.tensor([1, 1, 1, 0, 0])) == [0, 3]


def test_the_temperature_is_that_of_the_other_parts():
    # of part 1: log-odds 3 and -3, three in four right; those of part 0 must not count
    labels = [1, 0] + [1, 1, 1, 0, 0, 0, 0, 1] * 50
    log_odds = torch.tensor([8.0, 2.0] + [3.0, 3, 3, 3, -3, -3, -3, -3] * 50).double()
    parts = [0, 0] + [1] * 400
    data = build_data(labels, list(range(402)))
    found = calibrate_log_odds(log_odds, parts, data)
    temperature = 8 / float(found[0])
    assert float(found[1]) == pytest.approx(2 / temperature)
    # without a prior: 3 / T = ln 3; each scan is a unit, so the prior weighs 1 in 400
    slope = 400 * (3 / temperature**2) * (0.75 - 1 / (1 + math.exp(-3 / temperature)))
    prior = math.log(temperature) / temperature / LOG_TEMPERATURE_SD**2
    curvature = 400 * 0.1875 * 9 / temperature**4  # one step of the grid is 3 %
    assert abs(slope + prior) < 0.03 * temperature * 1.5 * curvature
    assert temperature == pytest.approx(3 / math.log(3), rel=0.05)  # the prior pulls towards 1
    # part 0 is what calibrates part 1: both are of label-typical size, no scan of its own
    other = calibrate_log_odds(torch.cat([log_odds[:2] * 9, log_odds[2:]]), parts, data)
    assert float(other[0]) == pytest.approx(9 * float(found[0]))


def test_sources_do_not_calibrate_each_other():
    data = build_data([1, 0, 1, 0], [0, 1, 2, 3])
    mixed = ScanDataset(
        data.scans, data.labels, ["a/1", "a/0", "b/1", "b/0"], data.groups, (), data.entries
    )
    log_odds = torch.tensor([2.0, -2, 5, -5]).double()
    found = calibrate_log_odds(log_odds, [0, 0, 1, 1], mixed)
    assert torch.equal(found, log_odds)  # no scan of the source in another part


def test_one_class_is_refused():
    data = build_data([0, 0, 0, 1], [0, 1, 2, 3], np.zeros((4, 28, 28), np.uint8))
    course = Course(read_preset("smoke"), 8, 4, torch.device("cpu"))
    with pytest.raises(ValueError, match="one class"):
        read_part(data, [3], course, 0)
