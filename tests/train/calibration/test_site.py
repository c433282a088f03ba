"""A system adapted to a site: thresholds, answers, the written hospital, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core import checkpoint
from core.checkpoint import WeightsError
from core.detector import SCORES
from core.pipeline import MedFedPure
from core.scan import from_uint8, to_uint8
from core.site.operating_point import TOLERANCE, SiteError
from core.weights import load
from demo.phantom import draw_phantom
from tests.hospitals import write
from tests.small_system import write_weights
from train.calibration.site import adapt, write_site

COUNT = 60


@pytest.fixture(scope="module")
def scans() -> np.ndarray:
    return np.stack([to_uint8(draw_phantom(n, n % 2 == 0)) for n in range(COUNT)])


@pytest.fixture
def system(tiny_system: MedFedPure) -> MedFedPure:
    return widen(copy.deepcopy(tiny_system))


def widen(system: MedFedPure) -> MedFedPure:
    """Spread the log-odds of an untrained system, which are all alike."""
    for classifier in (system.classifier, system.plain):
        classifier.temperature.fill_(1e-3)
    return system


def read(system: MedFedPure, scans: np.ndarray) -> tuple[Tensor, Tensor, list[bool]]:
    """Return log-odds with and without defence, and alarms, as a user gets them."""
    found = [d for x in from_uint8(scans).split(20) for d in system.read_batch(x, [0] * len(x))]
    odds = [
        torch.tensor([getattr(d, name) for d in found], dtype=torch.float64).logit(1e-12)
        for name in ("tumour_probability", "tumour_probability_undefended")
    ]
    return odds[0], odds[1], [d.flagged for d in found]


def test_an_adapted_system_answers_as_often_as_assumed(system: MedFedPure, scans) -> None:
    before, _, alarms = read(system, scans)
    figures = adapt(system, scans, 0.3)
    log_odds, plain, flagged = read(system, scans)
    taken = figures.answers[0]
    assert (figures.scans, figures.refused) == (COUNT, 0)
    assert figures.tumours_before == int((before >= 0).sum()) and taken.prevalence == 0.3
    assert figures.alarms_before == sum(alarms)
    for found in (log_odds, plain):  # the grid of shifts is much finer than these log-odds
        assert 0.2 * COUNT - 1 <= int((found >= 0).sum()) <= 0.4 * COUNT + 1
    assert taken.tumours == int((log_odds >= 0).sum()) and taken.shift != 0
    assert figures.alarms_after == sum(flagged) == 2  # at most 5 % of 60, and one scan
    others = {answers.prevalence: answers.tumours / COUNT for answers in figures.answers[1:]}
    assert others == {p: pytest.approx(p, abs=TOLERANCE + 1 / COUNT) for p in (0.5, 0.7)}


def test_thresholds_are_the_site_s_own(system: MedFedPure, scans) -> None:
    span = system.detector.span.clone()
    with torch.no_grad():
        scores = system.detector(from_uint8(scans)).scores
    adapt(system, scans, 0.5)
    for row, name in enumerate(SCORES):
        tau, rank = system.detector.thresholds[row].tolist()
        ordered = scores[name].sort().values.tolist()
        assert tau == pytest.approx(ordered[57], rel=1e-4)  # ceil(61 * .95) = 58th
        assert ordered[49] <= rank + 1e-4 and rank <= ordered[-1]  # ceil(61 * .82) = 51st
        assert system.detector.quantiles[row, -1] >= ordered[-1] - 1e-4
    assert torch.equal(system.detector.span, span)


def test_what_is_refused_leaves_the_system_as_it_was(system: MedFedPure, scans) -> None:
    state = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    refused = [(scans[:5], 0.5, "Only 5 scans"), (scans[:49], None, "Only 49 scans")]
    for some, prevalence, words in refused:
        with pytest.raises(SiteError, match=words):
            adapt(system, some, prevalence)
    system.novelty.cut.fill_(-1)
    with pytest.raises(SiteError, match="60 of 60 scans are unlike brain MRI"):
        adapt(system, scans, 0.5)
    system.novelty.cut.fill_(0)
    system.classifier.bias.copy_(torch.tensor([0.0, 1e3]))
    with pytest.raises(SiteError, match="one class, as nearly all scans are read as 'tumour'"):
        adapt(system, scans, None)
    system.classifier.bias.zero_()
    now = system.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in state.items())


def test_whoever_names_the_prevalence_vouches_for_both_classes(system: MedFedPure, scans) -> None:
    system.classifier.bias.copy_(torch.tensor([0.0, 1e3]))
    figures = adapt(system, scans, 0.5)
    assert figures.tumours_before == COUNT and "read as 'tumour'" in figures.doubt
    assert abs(figures.answers[0].tumours - 0.6 * COUNT) <= 1


@pytest.mark.parametrize("has_hospitals", [True, False])
def test_a_site_is_a_hospital_of_its_own(
    tiny_system: MedFedPure, scans, tmp_path: Path, has_hospitals: bool
) -> None:
    weights, out = tmp_path / "weights", tmp_path / "out"
    weights.mkdir()
    if has_hospitals:
        write(copy.deepcopy(tiny_system), weights)
    else:
        write_weights(copy.deepcopy(tiny_system), weights)
    files = {path.name: path.read_bytes() for path in weights.iterdir()}
    hospital, number = (3, 4) if has_hospitals else (None, 1)
    system = widen(load(weights, "cpu", hospital=hospital))
    figures = adapt(system, scans, 0.5)
    assert write_site(system, figures, weights, out) == number
    again = load(out, "cpu")
    assert again.info["hospital"] == number and again.info["hospitals"] == [number]
    assert again.info["site"]["adapted_from"] == hospital
    assert again.info["site"]["scans"] == COUNT
    for a, b in zip(read(again, scans[:8]), read(system, scans[:8]), strict=True):
        assert torch.allclose(torch.as_tensor(a).double(), torch.as_tensor(b).double(), atol=1e-6)
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == files
    with pytest.raises(WeightsError, match="holds weights already: name another folder"):
        write_site(system, figures, weights, out)
    for file in out.iterdir():
        assert file.suffix in {".safetensors", ".json"}
    assert set(checkpoint.read_manifest(out)) == {p.name for p in out.glob("*.safetensors")}
