"""Analysis of one scan as values for the page, without widgets."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from demo.analysis.analysis import Analysis
from demo.analysis.attack import iterate_attack
from demo.analysis.explanation import collect_clean_scores
from demo.analysis.staged_reading import STAGES, stream_reading
from demo.explore import results_view, viewer
from demo.explore.progress_strip import Stages
from demo.rendering import wording
from demo.rendering.tumour_map import build_map_layers

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.interval import IntervalNet
    from core.pipeline import MedFedPure

log = logging.getLogger(__name__)
Progress = tuple[Stages, Analysis]


class AnalysisView(NamedTuple):
    """Values of the page made from an analysis; without `results` the page keeps what is None."""

    stages: str  # HTML, as are all others but `view` and `analysis`
    story: str | None = None
    view: viewer.View | None = None
    results: str | None = None
    decision: str | None = None
    analysis: Analysis | None = None

    def update(self, later: AnalysisView) -> AnalysisView:
        """Return what the page shows after a later step."""
        if later.results is not None:
            return later
        return self._replace(stages=later.stages, analysis=later.analysis)


def analyse(
    system: MedFedPure,
    begun: Analysis,
    view: viewer.View,
    certifier: IntervalNet | None = None,
    done: str = "",
) -> Iterator[AnalysisView]:
    """Read the clean scan, attack it, read the attacked one; then explain both readings.

    Args:
        system: the pipeline, in eval mode.
        begun: the analysis of a canonical scan before its first reading.
        view: of the same scan, as the viewer shows it.
        certifier: certifies the answers, if there is one.
        done: line under the stages at the end, if not the usual one.

    Yields:
        The analysis so far, after each change; the pictures and results where they are new.
    """
    stages, shown = Stages(), (0, False)
    maps: viewer.View = {}  # of each reading, described once
    steps = _iterate_steps(system, begun, stages, certifier)
    try:
        for stages, analysis in steps:
            parts = len(analysis.readings), analysis.clean_scores is not None
            for name, d in analysis.readings[shown[0] :]:
                maps |= build_map_layers(name, d)
            yield (
                AnalysisView(stages.render(), analysis=analysis)
                if parts == shown
                else _build_analysis_view(stages, view | maps, analysis)
            )
            shown = parts
        done = done or ("Done." if begun.settings.num_steps else "Done, without an attack.")
        yield AnalysisView(stages.set(done, "done").render(), analysis=analysis)
    except (RuntimeError, ValueError, MemoryError) as error:
        log.exception("an analysis failed")
        failed = stages.fail(f"The analysis failed: {error}").render()
        yield AnalysisView(failed, "", view, results_view.render_empty("There is no result."), "")


def _build_analysis_view(stages: Stages, view: viewer.View, analysis: Analysis) -> AnalysisView:
    """Build the page's values of an analysis."""
    return AnalysisView(
        stages.render(),
        results_view.render_story(analysis),
        {**view, **viewer.build_layers(analysis)},
        results_view.render(analysis),
        results_view.render_explanation(analysis),
        analysis,
    )


def _iterate_steps(
    system: MedFedPure, current: Analysis, stages: Stages, certifier: IntervalNet | None
) -> Iterator[Progress]:
    config, detector = system.config, system.config.detector
    options = {
        "score": detector.score, "policy": config.purifier.policy, "d": config.stability.d
    }  # fmt: skip
    info = {**system.info, **options}
    settings = current.settings
    current = replace(current, info=info, sides=system.config.moe.sides)
    stages = stages.set("", "done", "load", load="224 x 224 px")
    reads = _read_scan(system, current.scan, settings.seed, stages, "clean")
    for stages, clean in reads:
        current = replace(current, clean=clean)
        yield stages, current
    if settings.kind == "none":
        stages = stages.set("", "skipped", "attack", attack="none")
    else:
        stages, current = yield from _run_attack(system, current, stages)
    yield stages.set("Explaining.", "done"), current
    if certifier is not None:
        proofs = {name: certifier.certify(d.scan) for name, d in current.readings}
        current = replace(current, certificates=proofs)
    scores = collect_clean_scores(system, detector.score)
    yield stages, replace(current, clean_scores=scores)


def _run_attack(
    system: MedFedPure, current: Analysis, stages: Stages
) -> Generator[Progress, None, Progress]:
    """Attack step by step, then read the result."""
    settings = current.settings
    stages = stages.set("Attacking.", "idle", *STAGES, **dict.fromkeys(STAGES, ""))
    stages = stages.set(stages.line, "running", "attack")
    yield stages, current
    start = time.perf_counter()
    for step in iterate_attack(system, current.scan, settings):
        current = replace(current, steps=(*current.steps, step))
        done = f"step {step.index} of {settings.num_steps}"
        tumour = wording.format_percent(float(step.probabilities[0, 1]))
        line = f"Attacking: {done}, the model under attack says tumour {tumour}."
        stages = stages.set(
            line, "running", "attack", attack=f"{done}, loss {float(step.loss[0]):.2f}"
        )
        yield stages, current
    current = replace(current, attack_ms=(time.perf_counter() - start) * 1000)
    stages = stages.set("", "done", "attack", attack=f"{current.attack_ms:.0f} ms")
    reads = _read_scan(system, current.steps[-1].x_adv[0].cpu(), settings.seed, stages, "attacked")
    for stages, attacked in reads:
        current = replace(current, attacked=attacked)
        yield stages, current
    return stages, current


def _read_scan(
    system: MedFedPure, scan: Tensor, seed: int, stages: Stages, which: str
) -> Iterator[tuple[Stages, Diagnosis | None]]:
    """Read a scan; yield the progress of its stages."""
    diagnosis = None
    for stage in stream_reading(system, scan, seed):
        if isinstance(stage, str):
            before = STAGES[: STAGES.index(stage)]
            stages = stages.set(f"Reading the {which} scan: {stage}.", "done", *before)
            stages = stages.set(stages.line, "running", stage, **{stage: f"{which} scan"})
        else:
            diagnosis = stage
            times = {name: f"{stage.timings_ms[name]:.0f} ms" for name in STAGES}
            stages = stages.set(f"The {which} scan is read.", "done", *STAGES, **times)
        yield stages, diagnosis
