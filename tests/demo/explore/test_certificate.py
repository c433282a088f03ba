"""Certificate on request: its sentences, and the cases without one."""

from __future__ import annotations

import re
import time
from pathlib import Path

import gradio as gr
import pytest
import torch
from torch import Tensor

from core.smoothing import Certificate, Smoothed, SmoothedConfig
from demo import page
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.explore.cancellation import RequestGeneration
from demo.explore.certificate import (
    FAILURE_MESSAGE,
    NO_ANALYSIS_MESSAGE,
    SAMPLING_MESSAGE,
    certify,
    describe_certificate,
    show,
)


@pytest.fixture(scope="module")
def classifier() -> Smoothed:
    torch.manual_seed(0)
    return Smoothed(SmoothedConfig()).eval()


def text(lines: list[str]) -> list[str]:
    return [re.sub("<[^>]+>", "", line) for line in lines]


def test_what_is_proven_is_said_and_of_whom() -> None:
    sure = describe_certificate(Certificate(1, 0.4198, 0.014996, 1000), 28)
    assert sure.startswith("Certified at ε = 0.0149 (L∞): the smoothed classifier says “tumour”")
    assert "wrong with a probability of at most 0.1%" in sure and "28 x 28" in sure
    unsure = describe_certificate(Certificate(None, 0.0, 0.0, 510), 28)
    assert unsure.startswith("Not certified") and "gives none" in unsure
    assert all("The defence's own answer is not certified" in s for s in (sure, unsure))


def test_a_scan_is_certified_in_seconds_and_again_the_same(
    classifier: Smoothed, scan: Tensor
) -> None:
    start = time.process_time()
    first = text(list(certify(classifier, RequestGeneration(), scan)))
    assert time.process_time() - start < 10
    assert first[0] == SAMPLING_MESSAGE and re.match("Certified at|Not certified", first[1])
    assert text(list(certify(classifier, RequestGeneration(), scan))) == first


def test_it_is_dropped_where_a_newer_request_has_begun(classifier: Smoothed, scan: Tensor) -> None:
    generation = RequestGeneration()
    running = certify(classifier, generation, scan)
    assert SAMPLING_MESSAGE in next(running)
    generation.end_reading()
    assert list(running) == [gr.skip()]


def test_without_a_scan_or_with_one_of_another_shape_there_is_a_sentence(
    classifier: Smoothed, scan: Tensor
) -> None:
    assert text(list(certify(classifier, RequestGeneration(), None))) == [NO_ANALYSIS_MESSAGE]
    assert text(list(certify(None, RequestGeneration(), scan))) == [NO_ANALYSIS_MESSAGE]
    assert text(list(certify(classifier, RequestGeneration(), scan[:, :112]))) == [
        SAMPLING_MESSAGE,
        FAILURE_MESSAGE,
    ]


def test_the_button_is_hidden_before_an_analysis_and_without_a_classifier(
    classifier: Smoothed, scan: Tensor
) -> None:
    analysis = Analysis(scan, AttackSettings(kind="none"))
    assert (
        not show(classifier, "", None)[0]["visible"]
        and show(classifier, "", analysis)[0]["visible"]
    )
    assert not show(None, "", analysis)[0]["visible"]
    box, answer = show(None, "The file is damaged.", analysis)
    assert box["visible"] and "The file is damaged." in answer


def test_weights_without_a_classifier_or_with_a_damaged_manifest_open_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "WEIGHTS", tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    assert page._load_smoothed() == (None, "")
    (tmp_path / "manifest.json").write_text("{")
    classifier, problem = page._load_smoothed()
    assert classifier is None and "damaged" in problem
