from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.diagnosis import Diagnosis
from core.interval import IntervalConfig
from core.pipeline import MedFedPure
from core.scan import Volume, to_uint8
from demo.analysis.analysis import Analysis
from demo.analysis.attack import AttackSettings
from demo.analysis.staged_reading import stream_reading
from demo.explore import analyse, results_view
from demo.explore.analyse import AnalysisView
from demo.explore.cancellation import RequestGeneration
from demo.explore.progress_strip import Stages
from demo.explore.series import Series, build_series
from demo.explore.tab import DROPPED_STEP, ExploreTab
from demo.phantom import draw_phantom
from demo.rendering import wording
from demo.rendering.stability import PROOF_MEANING
from demo.rendering.tumour_map import build_map_layers
from tests.core.test_interval import build

VIEW = {"key": "a scan"}


def analyse_all(
    system: MedFedPure, scan: Tensor, settings: AttackSettings, doubts: tuple[str, ...] = ()
) -> AnalysisView:
    """Return what the page shows at the end."""
    begun = Analysis(scan, settings, doubts=doubts)
    return functools.reduce(AnalysisView.update, analyse.analyse(system, begun, VIEW))


def states(html: str) -> dict[str, str]:
    found = re.findall(r'class="mf-stage mf-(\w+)" data-stage="(\w+)"', html)
    return {name: state for state, name in found}


def test_stages_light_up_in_the_pipeline_s_order(system: MedFedPure, scan: Tensor) -> None:
    seen = list(analyse.analyse(system, Analysis(scan, AttackSettings(steps=2)), VIEW))
    running = [[n for n, s in states(html).items() if s == "running"] for html, *_ in seen]
    order = [r[0] for i, r in enumerate(running) if r and (i == 0 or running[i - 1] != r)]
    clean, attacked = ["detect", "purify", "classify"], ["detect", "purify", "classify"]
    assert order == [*clean, "attack", *attacked]
    assert all(len(names) <= 1 for names in running)
    assert set(states(seen[-1][0]).values()) == {"done"} and "Done." in seen[-1][0]
    assert any("step 1 of 2" in html for html, *_ in seen)
    views = [shown.view for shown in seen if shown.view is not None]
    pictures = [{n for n in view if n.startswith(("clean", "attacked"))} for view in views]
    clean = {"clean_error", "clean_evidence", "clean_purified"}
    both = clean | {"attacked", "attacked_error", "attacked_evidence", "attacked_purified"}
    assert pictures == [clean, both, both] and views[-1]["key"] == VIEW["key"]
    assert [len(shown.analysis.steps) for shown in seen if shown.analysis][-1] == 3  # and the clean
    assert all((shown.results is None) == (shown.view is None) for shown in seen)


def test_the_tumour_maps_of_a_reading_are_described_once(
    mapping_system: MedFedPure, scan: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []

    def describe(name: str, d: Diagnosis) -> dict[str, Any]:
        described.append(name)
        return build_map_layers(name, d)

    monkeypatch.setattr(analyse, "build_map_layers", describe)
    settings = AttackSettings(steps=2)
    shown = [
        s
        for s in analyse.analyse(mapping_system, Analysis(scan, settings), VIEW)
        if s.view is not None
    ]
    assert described == ["clean", "attacked"]
    seen = [{name for name in s.view or {} if name.endswith(("_where", "_map0"))} for s in shown]
    clean, attacked = {"clean_where", "clean_map0"}, {"attacked_where", "attacked_map0"}
    assert seen == [clean, clean | attacked, clean | attacked]


def test_what_came_too_late_changes_nothing_on_the_page(system: MedFedPure, scan: Tensor) -> None:
    """Gradio sends the last yielded value again at the end: it must not be an old step."""
    generation, series_cache = RequestGeneration(), {"a key": build_series(to_uint8(scan))}
    explore = object.__new__(ExploreTab)
    explore.systems, explore.series_cache = {None: system}, series_cache  # type: ignore[assignment]
    explore.certifier, explore.no_certifier = None, ""
    explore.problem, explore.idle = "", Stages()
    running = explore._analyse(
        generation, "a key", False, None, "fused", "floor", 0.0075,
        "pgd", "linf", 0.015, 0.003, 5, "plain", "unknown", 0,
    )  # fmt: skip
    assert "The scan is being read." in str(next(running))  # nothing of the scan before
    assert "mf-running" in next(running)[0]
    generation.end()
    assert list(running) == [DROPPED_STEP] and not generation.is_finished


def test_the_answer_for_the_volume_goes_with_the_analysis_of_a_slice(
    tiny_system: MedFedPure, scan: Tensor
) -> None:
    """If the same system has read all slices, by the same score and policy."""
    data = np.stack([to_uint8(scan)[0], to_uint8(draw_phantom(2, False))[0]]).astype(np.float32)
    series = Series(Volume(data, (0.0, 255.0), "DICOM"))
    explore = object.__new__(ExploreTab)
    explore.systems = {None: tiny_system}
    explore.series_cache = {"a key": series}  # type: ignore[assignment]
    explore.certifier, explore.no_certifier = None, ""
    explore.problem, explore.idle = "", Stages()

    def find_answer(policy: str) -> str:
        values = ("none", "linf", 0.015, 0.003, 5, "plain", "unknown", 0)
        steps = explore._analyse(
            RequestGeneration(), "a key", False, None, "fused", policy, 0.0075, *values
        )
        *_, (*_, analysis) = steps
        assert analysis.clean is not None
        return str(analysis.volume_answer)

    assert find_answer("floor") == ""
    reading = explore._score(RequestGeneration(), "a key", None, "fused", "floor")
    next(reading)
    assert find_answer("floor") == ""  # not all slices are read
    list(reading)
    assert find_answer("floor") == series.answer != ""
    assert find_answer("paper") == ""


def test_without_an_attack_the_clean_scan_is_read_alone(system: MedFedPure, scan: Tensor) -> None:
    settings = AttackSettings(kind="none")
    last = analyse_all(system, scan, settings)
    assert states(last.stages)["attack"] == "skipped" and last.results and last.view
    assert "attacked-scan.png" not in last.results
    assert last.view["blanks"] == {
        "attacked": "No attack was made.",
        "change": "No attack was made.",
    }


def test_eps_zero_is_a_control(system: MedFedPure, scan: Tensor) -> None:
    settings = AttackSettings(eps=0.0, steps=1)
    last = analyse_all(system, scan, settings)
    result = last.results or ""
    assert (
        "no pixel differs" in result and "flipped" not in result and "attack missed" not in result
    )
    assert "The attack changed no pixel." in (last.story or "")


def test_a_failure_is_said(
    system: MedFedPure, scan: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Diagnosis:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(system, "read", broken)
    last = analyse_all(system, scan, AttackSettings())
    assert "The analysis failed: out of memory" in last.stages
    assert states(last.stages)["detect"] == "failed" and last.analysis is None
    assert "There is no result." in str(last.results) and last.view == VIEW


def test_doubts_about_the_file_are_said_beside_the_output(system: MedFedPure, scan: Tensor) -> None:
    settings = AttackSettings(kind="none")
    last = analyse_all(system, scan, settings, ("The picture is <dark>.",))
    assert "The picture is &lt;dark&gt;." in str(last.story)


def test_watching_a_reading_changes_nothing(system: MedFedPure, scan: Tensor) -> None:
    *stages, diagnosis = stream_reading(system, scan, seed=3)
    plain = system.read(scan, seed=3)
    assert stages == ["detect", "purify", "classify"] and isinstance(diagnosis, Diagnosis)
    assert diagnosis.tumour_probability == pytest.approx(plain.tumour_probability, abs=1e-4)
    assert diagnosis.score == pytest.approx(plain.score, abs=1e-4)
    assert torch.allclose(plain.purified, diagnosis.purified, atol=1e-4)
    assert not system.detector._forward_hooks and not system.purifier._forward_hooks


@pytest.mark.parametrize(
    ("clean", "attacked", "truth", "tone", "words"),
    [
        ("tumour", "tumour", "unknown", "good", "held"),
        ("tumour", "no tumour", "unknown", "bad", "failed"),
        ("tumour", "no tumour", "tumour", "bad", "failed"),
        ("no tumour", "tumour", "tumour", "bad", "wrong before any attack"),
    ],
)
def test_a_failed_defence_is_said_as_plainly(
    clean: str, attacked: str, truth: str, tone: str, words: str
) -> None:
    for aim in wording.AIMS:
        said = wording.describe_defence_outcome(clean, attacked, truth, aim)
        assert said[0] == tone and words in said[1]
    flipped = wording.describe_attack_outcome(clean, attacked, truth, "plain")
    assert (flipped[0] == "good") == (tone == "good")


@pytest.mark.parametrize("aim", ["mixture", "defence"])
def test_an_attack_on_another_model_is_not_called_a_failure(aim: str) -> None:
    for attacked in wording.CLASSES:
        tone, words = wording.describe_attack_outcome("tumour", attacked, "tumour", aim)
        assert tone == ("note" if attacked == "tumour" else "bad")
        assert words.startswith(f"Made for {wording.MADE_FOR[aim]}") and "failed" not in words


def test_harm_to_a_clean_scan_is_said() -> None:
    assert wording.describe_clean_outcome("tumour", "tumour", "unknown")[0] == "good"
    assert wording.describe_clean_outcome("tumour", "no tumour", "tumour")[0] == "bad"
    assert wording.describe_clean_outcome("no tumour", "tumour", "tumour")[0] == "good"
    assert wording.describe_clean_outcome("no tumour", "tumour", "unknown")[0] == "note"
    assert (
        "both outputs are wrong"
        in wording.describe_clean_outcome("tumour", "tumour", "no tumour")[1]
    )


def test_probabilities_never_claim_certainty() -> None:
    assert [wording.format_percent(p) for p in (0.0, 0.004, 0.5, 0.996, 1.0)] == [
        "< 1 %", "< 1 %", "50 %", "> 99 %", "> 99 %"
    ]  # fmt: skip


def test_eps_is_explained_in_grey_levels() -> None:
    assert "3.8/255" in wording.describe_eps(
        "linf", 0.015
    ) and "3 whole levels" in wording.describe_eps("linf", 0.015)
    assert "control" in wording.describe_eps(
        "l2", 0.0
    ) and "root mean square" in wording.describe_eps("l2", 2.0)


def test_the_answers_are_certified_where_there_is_a_classifier_for_it(
    system: MedFedPure, scan: Tensor
) -> None:
    certifier = build(IntervalConfig(side=28, channels=(4, 4), kernels=(3, 3), strides=(2, 1)))
    begun = Analysis(scan, AttackSettings(steps=2))
    *_, last = analyse.analyse(system, begun, VIEW, certifier)
    assert last.analysis is not None
    proofs = last.analysis.certificates
    assert list(proofs) == ["clean", "attacked"]
    for name, d in last.analysis.readings:
        assert proofs[name] == certifier.certify(d.scan)
    shown = results_view.render(last.analysis)
    assert PROOF_MEANING in shown and "proven" in shown
    without = results_view.render(replace(last.analysis, certificates={}))
    assert PROOF_MEANING not in without
    damaged = replace(last.analysis, certificates={}, no_certificates="The file is damaged.")
    assert "The file is damaged." in results_view.render(damaged)
