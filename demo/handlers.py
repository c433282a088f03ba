"""What happens on the page's events, without any widget: data in, HTML and values out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from demo import results, viewer, wording
from demo.analysis import Analysis
from demo.attacking import AttackSettings, trajectory
from demo.decision import decision
from demo.evidence import evidence
from demo.reading import DEFENCE, reading
from demo.stages import Stages

if TYPE_CHECKING:
    from core.diagnosis import Diagnosis
    from core.pipeline import MedFedPure

log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What the page shows of an analysis, and the analysis itself."""

    stages: str  # HTML, as are `results` and `decision`
    view: viewer.View
    results: str
    decision: str = ""
    analysis: Analysis | None = None


def analyse(
    system: MedFedPure, scan: Tensor, view: viewer.View, settings: AttackSettings
) -> Iterator[Shown]:
    """Reads the clean scan, attacks it, reads the attacked one.

    Args:
        system: the pipeline, in eval mode.
        scan: the canonical scan (1, 224, 224).
        view: of the same scan, as the viewer shows it.
        settings: the attack.

    Yields:
        All that is known so far, whenever something new is.
    """
    stages = Stages()
    try:
        for stages, analysis in _steps(system, scan, settings):
            yield Shown(
                stages.html(),
                {**view, **viewer.results(analysis)},
                results.render(analysis),
                decision(analysis),
                analysis,
            )
    except (RuntimeError, ValueError, MemoryError) as error:
        log.exception("an analysis failed")
        failed = stages.fail(f"The analysis failed: {error}").html()
        yield Shown(failed, view, results.empty("There is no result."))


def _steps(
    system: MedFedPure, scan: Tensor, settings: AttackSettings
) -> Iterator[tuple[Stages, Analysis]]:
    now = Analysis(scan, settings, info=dict(system.info))
    stages = Stages().set("", "done", "load", load="224 x 224 px")
    reads = _reading(system, now.scan, settings.seed, stages, "clean")
    for stages, clean in reads:
        now = _with(system, now, "clean", clean)
        yield stages, now
    if settings.kind == "none":
        yield stages.set("Done, without an attack.", "skipped", "attack", attack="none"), now
        return
    stages = stages.set("Attacking.", "idle", *DEFENCE, **dict.fromkeys(DEFENCE, ""))
    stages = stages.set(stages.line, "running", "attack")
    yield stages, now
    start = time.perf_counter()
    for step in trajectory(system, now.scan, settings):
        now = replace(now, steps=(*now.steps, step))
        done = f"step {step.index} of {settings.num_steps}"
        tumour = wording.percent(float(step.probabilities[0, 1]))
        line = f"Attacking: {done}, the model under attack says tumour {tumour}."
        stages = stages.set(
            line, "running", "attack", attack=f"{done}, loss {float(step.loss[0]):.2f}"
        )
        yield stages, now
    now = replace(now, attack_ms=(time.perf_counter() - start) * 1000)
    stages = stages.set("", "done", "attack", attack=f"{now.attack_ms:.0f} ms")
    reads = _reading(system, now.steps[-1].x_adv[0].cpu(), settings.seed, stages, "attacked")
    for stages, attacked in reads:
        now = _with(system, now, "attacked", attacked)
        yield stages, now
    yield stages.set("Done.", "done"), now


def _with(system: MedFedPure, now: Analysis, name: str, d: Diagnosis | None) -> Analysis:
    """The analysis with one more reading, explained; unchanged as long as there is none."""
    if d is None:
        return now
    reading: dict[str, Any] = {name: d}
    return replace(now, evidence={**now.evidence, name: evidence(system, d)}, **reading)


def _reading(
    system: MedFedPure, scan: Tensor, seed: int, stages: Stages, which: str
) -> Iterator[tuple[Stages, Diagnosis | None]]:
    """One reading of a scan, each of its stages lit when it starts and done when it ends."""
    diagnosis = None
    for stage in reading(system, scan, seed):
        if isinstance(stage, str):
            before = DEFENCE[: DEFENCE.index(stage)]
            stages = stages.set(f"Reading the {which} scan: {stage}.", "done", *before)
            stages = stages.set(stages.line, "running", stage, **{stage: f"{which} scan"})
        else:
            diagnosis = stage
            times = {name: f"{stage.timings_ms[name]:.0f} ms" for name in DEFENCE}
            stages = stages.set(f"The {which} scan is read.", "done", *DEFENCE, **times)
        yield stages, diagnosis
